"""What is around a gateway under odd input: a session worker and a transcript service for its calls,
in this process, and a reader of its log. What they see that must not be is noted as a finding.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from asheard.v1 import (
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from fuzz.good_call import SPOKEN_MS, GoodCall
from fuzz.harness import Report
from transcript.facts import fault

RECENT_CASES = 5
"""A finding names so many cases before it: what they did may come out later."""

_PEERS_FAULT = {"Twilio reports a stream error"}
"""Logged as an error, and caused by what a peer says."""


@dataclass(slots=True)
class Delays:
    """What was measured in one phase, in seconds."""

    frames: list[float] = field(default_factory=list)
    """Of seconds in which the machine had room."""
    crowded: int = 0
    """How many frames came in other seconds."""
    own_s: float = 0.0
    """How late this process was at most."""

    @property
    def p99_s(self) -> float:
        return sorted(self.frames)[len(self.frames) * 99 // 100] if self.frames else 0.0


class World(
    session_service_pb2_grpc.SessionServiceServicer, ingest_service_pb2_grpc.IngestServiceServicer
):
    """Session worker and transcript service."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.good: dict[str, GoodCall] = {}
        self.quiet, self.loud = Delays(), Delays()
        self.delays = self.quiet
        self.window: list[float] = []
        """Delays of frames within the second that runs."""
        self.recent: deque[int] = deque([0], RECENT_CASES)
        self.facts = 0
        self._by_handle: dict[int, GoodCall] = {}
        self._out: asyncio.Queue[session_service_pb2.LinkResponse] = asyncio.Queue()

    def found(self, what: str, detail: str) -> None:
        """Note a finding, at the case that is under way."""
        cases = ", ".join(map(str, self.recent))
        self.report.add(self.recent[-1], what, f"{detail}\nthe last cases: {cases}")

    # -- the session worker ----------------------------------------------------------------------

    async def Link(
        self,
        request_iterator: AsyncIterator[session_service_pb2.LinkRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[session_service_pb2.LinkResponse]:
        """One gateway."""
        self._out = asyncio.Queue()
        report = session_service_pb2.LoadReport(active_calls=0, max_calls=10_000)
        self._control(0, load_report=report)
        reading = asyncio.create_task(self._read(request_iterator))
        try:
            while True:
                yield await self._out.get()
        finally:
            reading.cancel()

    async def _read(self, requests: AsyncIterator[session_service_pb2.LinkRequest]) -> None:
        async for request in requests:
            now = time.monotonic()
            for control in request.control:
                self._told(control)
            audio = request.caller_audio
            for handle, payload in zip(audio.call, audio.payload, strict=True):
                call = self._by_handle.get(handle)
                if call is not None:
                    number = int.from_bytes(base64.b64decode(payload)[:4], "big")
                    call.arrived.append(number)
                    self.window.append(now - call.sent_at[number])

    def _told(self, control: session_service_pb2.GatewayControl) -> None:
        handle = control.call
        match control.WhichOneof("body"):
            case "open_call":
                accepted = session_service_pb2.CallAccepted(session_writer=f"session/{handle}")
                self._control(handle, call_accepted=accepted)
                call = self.good.get(control.open_call.call_sid)
                if call is not None:
                    call.handle = handle
                    self._by_handle[handle] = call
                    return
                self.speak(handle, "item_1")  # so that there are marks to be echoed
                if handle % 3 == 0:
                    self._control(handle, interrupt=session_service_pb2.Interrupt(interrupt_id=1))

    def _control(self, call: int, **body: Any) -> None:
        control = session_service_pb2.SessionControl(call=call, **body)
        self._out.put_nowait(session_service_pb2.LinkResponse(control=[control]))

    def speak(self, handle: int, item_id: str) -> None:
        """Let the agent of a call say something."""
        payload = base64.b64encode(b"\x55" * (8 * SPOKEN_MS))
        audio = session_service_pb2.AgentAudio(
            call=handle, item_id=item_id, payload=payload, last=True
        )
        self._out.put_nowait(session_service_pb2.LinkResponse(agent_audio=[audio]))

    # -- the transcript service --------------------------------------------------------------------

    async def AppendFacts(
        self,
        request: ingest_service_pb2.AppendFactsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> ingest_service_pb2.AppendFactsResponse:
        """Take facts, if a transcript service would."""
        response = ingest_service_pb2.AppendFactsResponse()
        for index, fact in enumerate(request.facts):
            self.facts += 1
            reason = fault(fact)
            if reason is not None:
                self.found(f"a fact that cannot be stored: {reason}", fact.call_sid[:60])
                response.rejected.add(index=index, reason=reason)
            elif fact.HasField("fact_dropped"):
                self.found(
                    f"a fact was given up: {fact.fact_dropped.body}", fact.fact_dropped.reason
                )
            elif fact.call_sid in self.good and fact.writer.startswith("gateway/MZ_good"):
                self.good[fact.call_sid].facts.append(fact)
        return response


class Log:
    """The gateway's log: it blames itself for nothing."""

    def __init__(self, world: World, path: Path) -> None:
        self._world = world
        self._path = path
        self._read_bytes = 0

    async def watch(self) -> None:
        """Look at what is new, so that a finding is near to its case."""
        while True:
            await asyncio.sleep(0.25)
            self.look()

    def look(self) -> None:
        """Look at all whole lines that are new."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(data) + len(newline)
        for line in data.decode(errors="replace").splitlines():
            self._line(line)

    def _line(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"level": "error", "event": line}
        if not isinstance(entry, dict) or entry.get("level") not in ("error", "critical"):
            return
        if entry.get("event") in _PEERS_FAULT:
            return
        raised = _RAISED.findall(str(entry.get("exception", "")))
        what = f"logged: {str(entry.get('event'))[:120]}{': ' + raised[-1] if raised else ''}"
        detail = json.dumps(entry, indent=1).replace("\\n", "\n")
        self._world.found(re.sub(r"\d+", "N", what), detail[:6_000])


_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)
"""The types in a traceback; the message after one may have several lines."""
