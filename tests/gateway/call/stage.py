"""One call between fake peers: a test holds the socket back, says what time it is, and looks at
every byte."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from prometheus_client import CollectorRegistry
from websockets.frames import Frame
from websockets.streams import StreamReader

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.call import Call, CallServices
from gateway.instant import Instant
from gateway.lane import Lane, LaneListener
from gateway.metrics import GatewayMetrics
from gateway.twilio.messages import MediaDetails, Start, StartDetails
from runtime.facts import FactOutbox
from tests.gateway.peers import FRAME, speech

BEGAN_UNIX_US = 1_800_000_000_000_000
"""What the wall clock says when the loop's says 0."""


class Sink:
    """A socket whose network takes nothing until it is told to."""

    def __init__(self) -> None:
        self.jammed = False
        self.unsent = 0
        self.messages: list[dict[str, Any]] = []
        self._reader = StreamReader()

    def abort(self) -> None:
        raise AssertionError("no call of these tests is beyond help")

    def write(self, frames: bytes) -> None:
        self.unsent += len(frames) if self.jammed else 0
        self._reader.feed_data(frames)
        while self._reader.buffer:
            parser = Frame.parse(self._reader.read_exact, mask=False)
            try:
                next(parser)
            except StopIteration as done:
                self.messages.append(json.loads(done.value.data))

    def unsent_bytes(self) -> int:
        return self.unsent

    def take(self) -> None:
        """Let the network take all that was written."""
        self.jammed, self.unsent = False, 0

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]

    @property
    def audio_ms(self) -> int:
        return (
            sum(
                len(base64.b64decode(message["media"]["payload"]))
                for message in self.messages
                if message["event"] == "media"
            )
            // 8
        )

    @property
    def marks(self) -> list[str]:
        return [m["mark"]["name"] for m in self.messages if m["event"] == "mark"]


class RecordingLane(Lane):
    def __init__(self, listener: LaneListener, call_sid: str, stream_sid: str) -> None:
        super().__init__(listener, call_sid, stream_sid)
        self.controls: list[session_service_pb2.GatewayControl] = []

    def send(self, control: session_service_pb2.GatewayControl) -> None:
        assert self.outcome is None, "nothing after the end"
        self.controls.append(control)

    @property
    def answers(self) -> list[session_service_pb2.PositionsFixed]:
        return [c.positions_fixed for c in self.controls if c.HasField("positions_fixed")]


class Outbox(FactOutbox):
    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("nowhere", registry)
        self.facts: list[fact_pb2.Fact] = []

    def post(self, call_sid: str, writer: str, sequence: int, body: dict[str, Any]) -> None:
        self.facts.append(
            fact_pb2.Fact(call_sid=call_sid, writer=writer, sequence=sequence, **body)
        )

    @property
    def kinds(self) -> list[str]:
        return [str(fact.WhichOneof("body")) for fact in self.facts]


class Stage:
    """One call with everything around it in a test's hands."""

    def __init__(self, **parameters: str) -> None:
        self.registry = CollectorRegistry()
        self.sink = Sink()
        self.outbox = Outbox(self.registry)
        self.ended: list[tuple[str, str, int]] = []
        self.lane: RecordingLane
        self._loop = asyncio.get_running_loop()
        self.shift_us = 0
        """How much later it is for the call than for us."""
        services = CallServices(self, self.outbox, GatewayMetrics(self.registry), self.now)
        start = Start(
            stream_sid="MZ1", start=StartDetails(call_sid="CA1", custom_parameters=parameters)
        )
        self.call = Call(start, self.sink, services, at=self.now(), on_end=self._on_end)
        self.call.session_accepted("session/1")

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        self.lane = RecordingLane(listener, call_sid, stream_sid)
        return self.lane

    def announce_stopped(self, call_sid: str, stream_sid: str) -> None:
        raise AssertionError("a call does not tell others")

    def now(self) -> Instant:
        """By the loop's clock."""
        mono_us = round(self._loop.time() * 1e6) + self.shift_us
        return Instant(mono_us, BEGAN_UNIX_US + mono_us)

    def _on_end(
        self, call_sid: str, outcome: fact_pb2.CallOutcome.ValueType, code: int, reason: str
    ) -> None:
        self.ended.append((call_sid, fact_pb2.CallOutcome.Name(outcome)[13:], code))

    def speak(self, ms: int, item_id: str = "item1", *, last: bool = False) -> None:
        self.call.agent_audio(item_id, 0, speech(ms), last, self.now())

    def interrupt(self, interrupt_id: int = 1) -> None:
        self.call.interrupted(session_service_pb2.Interrupt(interrupt_id=interrupt_id), self.now())

    def finish(
        self,
        outcome: fact_pb2.CallOutcome.ValueType = fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT,
        *,
        told: bool = False,
    ) -> None:
        finished = session_service_pb2.CallFinished(outcome=outcome, told=told)
        self.call.session_finished(finished, self.now())

    def media(self, timestamp_ms: int) -> None:
        self.call.receive_media(MediaDetails(timestamp=timestamp_ms, payload=FRAME), self.now())

    @property
    def events_traced(self) -> int:
        """How many inputs of the playhead facts hold."""
        return sum(len(fact.playout_traced.events) for fact in self.outbox.facts)

    def facts(self, kind: str) -> list[Any]:
        """The bodies of all facts of a kind."""
        return [getattr(f, kind) for f in self.outbox.facts if f.WhichOneof("body") == kind]

    def metric(self, name: str, **labels: str) -> float:
        """What a metric says."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def positions(self) -> dict[str, tuple[int, int]]:
        """best_ms and sent_ms of each item that has a fact of it."""
        return {
            fact.position_fixed.position.item_id: (
                fact.position_fixed.position.best_ms,
                fact.position_fixed.position.sent_ms,
            )
            for fact in self.outbox.facts
            if fact.WhichOneof("body") == "position_fixed"
        }
