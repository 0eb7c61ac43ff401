"""Odd events of the model's: through decoder, conversation and outbox, and through a whole call.

Good sessions are those of the simulator's scenarios, and recordings of the live API where they are
available. Their events are left out, doubled, put elsewhere, mixed with those of others, and changed; ids
are shared among them, so that they meet. The gateway answers as it likes.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from random import Random
from types import TracebackType
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, ingest_service_pb2, session_service_pb2, transcript_pb2
from fuzz import mutate
from fuzz.harness import Broken
from gateway.twilio.messages import LATEST_MS
from runtime import facts
from runtime.errors import PeerProtocolError
from runtime.fact_queue import DROP_REASONS
from runtime.facts import FactOutbox
from session import call as call_module
from session.agent import Agent, load_agent, parse_agent
from session.call import Call, CallSettings, Outcome
from session.metrics import SessionMetrics
from session.notices import Notice, Sentence
from session.outbox import Outlet
from session.realtime import codec
from session.realtime.connection import Closed
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import CallTool, Fatal, Interrupt, ToCaller, ToModel, WriteFact
from session.tools import ToolResult, ToolRunner
from tests.session.recordings import recordings
from tests.simulators.realtime import scenarios
from transcript.facts import fault
from words.proportional import ProportionalSource
from words.timing import Speech, WordTimes

MAX_PIECE_BYTES = 256 * 1024
"""Of audio in one message to the gateway; a larger piece is to be split."""

MAX_TO_MODEL_BYTES = 1024 * 1024
"""Of one event to the model: instructions and the answers of functions, which are bounded."""

MAX_EVENTS = 3_000

_IDS = ("id", "item_id", "response_id", "previous_item_id", "call_id", "event_id")
_QUIET = parse_agent("name: x\ninstructions: Be brief.\n", name="inline")
_NOTICES = {notice: Sentence.of(f"This is {notice.value}.", b"\x55" * 12_000) for notice in Notice}
_POSITION_CAUSES = fact_pb2.PositionCause.values()


class Model:
    """The target."""

    def __init__(self) -> None:
        self._sessions = [list(make().events) for make in scenarios.ALL]
        self._sessions += [recording.received for recording in recordings()]
        self._all = [event for session in self._sessions for event in session]
        self._agents = [load_agent(None), _QUIET]
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._registry = CollectorRegistry()
        self._outbox = FactOutbox("nowhere", self._registry, append=self._append)
        self._taken: list[fact_pb2.Fact] = []
        self._metrics = SessionMetrics(CollectorRegistry())
        self._waits = {name: getattr(call_module, name) for name in ("TRANSCRIPTION_S", "WORDS_S")}
        self._pace = (facts.BUSY_S, facts.LINGER_S)

    def __enter__(self) -> Model:
        for name in self._waits:  # nothing comes any more when a case is over
            setattr(call_module, name, 0.001)
        facts.BUSY_S = facts.LINGER_S = 0.0
        self._runner.run(self._outbox.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._outbox.close())
        self._runner.close()
        for name, wait_s in self._waits.items():
            setattr(call_module, name, wait_s)
        facts.BUSY_S, facts.LINGER_S = self._pace

    def case(self, random: Random) -> int:
        """One session."""
        messages = list(self._messages(random))
        how = self._conversation if random.random() < 0.6 else self._call
        self._runner.run(self._outbox.flush(20))  # what a case left that was not right
        self._taken.clear()
        self._runner.run(how(random, messages))
        for reason in DROP_REASONS:
            dropped = self._registry.get_sample_value(
                "asheard_facts_dropped_total", {"reason": reason}
            )
            if dropped:
                self._registry = CollectorRegistry()
                self._outbox = FactOutbox("nowhere", self._registry, append=self._append)
                self._runner.run(self._outbox.start())
                raise Broken(f"a fact was given up: {reason}")
        return len(messages)

    # -- what the model says -------------------------------------------------------------------

    def _messages(self, random: Random) -> Iterator[bytes]:
        session = list(random.choice(self._sessions))
        if random.random() < 0.3:  # from several sessions
            more = random.choices(self._all, k=random.randrange(200))
            place = random.randrange(len(session) + 1)
            session[place:place] = more
        if random.random() < 0.2:
            session = random.choices(self._all, k=random.choice((10, 100, 1_000)))
        session = mutate.shuffled(random, session, lambda event: _odd(random, event))
        if session and random.random() < 0.2:  # one event very often
            place = random.randrange(len(session))
            session[place:place] = [session[place]] * random.choice((10, 300, 2_000))
        if random.random() < 0.5:
            session = _meeting(random, session)
        if random.random() < 0.8:
            session[:0] = [
                {"type": "session.created", "session": {"id": "sess_1"}},
                {"type": "session.updated", "session": {"id": "sess_1"}},
            ]
        odd_json = random.random() < 0.2
        for event in session[:MAX_EVENTS]:
            if odd_json and random.random() < 0.02:
                yield mutate.as_json(random, event)
            else:
                yield json.dumps(event).encode()

    # -- a conversation, in time that the case makes --------------------------------------------

    async def _conversation(self, random: Random, messages: list[bytes]) -> None:
        shell = _Shell(random, random.choice(self._agents), self._outbox)
        shell.open()
        for message in messages:
            if not shell.receive(message):
                break
            shell.meanwhile()
        shell.end()
        await self._delivered()
        bodies = [fact.WhichOneof("body") for fact in self._taken]
        if "session_started" not in bodies or bodies[-1:] != ["session_ended"]:
            raise Broken(f"facts begin with {bodies[:1]} and end with {bodies[-1:]}")

    # -- a call, in real time ------------------------------------------------------------------

    async def _call(self, random: Random, messages: list[bytes]) -> None:
        connection = _Connection(random, messages)
        outlet = _Outlet()
        agent = random.choice(self._agents)

        async def connect(url: str, *, model: str, key: str | None) -> _Connection:
            return connection

        settings = CallSettings(
            agent=agent,
            model="gpt-test",
            realtime_url="ws://nowhere/",
            key=None,
            align="cut",
            connect=connect,
            tools=_Tools(random),
            refine=_refine,
            metrics=self._metrics,
            notices=_NOTICES,
        )
        call = Call("CA1", settings, outlet, self._outbox.writer("CA1", "session/1"))
        connection.meanwhile = lambda: _gateway_says(random, call, outlet)
        running = asyncio.create_task(call.run())
        leaving = asyncio.create_task(connection.over.wait())
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        call.leave(random.choice((Outcome.COMPLETED, Outcome.LINK_LOST)))
        outcome = await asyncio.wait_for(running, 20)
        if outcome is Outcome.FAILED:
            raise Broken("the call failed by our own fault; see what was logged")
        await self._delivered()
        bodies = [fact.WhichOneof("body") for fact in self._taken]
        if bodies[-1:] != ["session_ended"]:
            raise Broken(f"facts end with {bodies[-1:]}")

    # -- the transcript service ----------------------------------------------------------------

    async def _append(self, request: bytes) -> ingest_service_pb2.AppendFactsResponse:
        self._taken += ingest_service_pb2.AppendFactsRequest.FromString(request).facts
        return ingest_service_pb2.AppendFactsResponse()

    async def _delivered(self) -> None:
        if not await self._outbox.flush(20):
            raise Broken("facts are not delivered")
        for fact in self._taken:
            if (reason := fault(fact)) is not None:
                raise Broken(f"a fact that cannot be stored: {reason}")
        numbers = [fact.sequence for fact in self._taken]
        if numbers != list(range(1, len(numbers) + 1)):
            raise Broken("a number of a fact is missing")


class _Shell:
    """Feeds a conversation as a call does, in time of its own."""

    def __init__(self, random: Random, agent: Agent, outbox: FactOutbox) -> None:
        self._random = random
        self._clock = InputClock()
        self._conversation = Conversation(
            agent, "gpt-test", self._clock, notices=_NOTICES, tag="fuzz"
        )
        self._writer = outbox.writer("CA1", "session/1")
        self._now = 100.0
        self._media_ms = 0
        self._fatal = False
        self._calls: list[str] = []
        self._items: list[str] = ["item_1"]

    def open(self) -> None:
        self._conversation.open()
        self._carry_out()

    def receive(self, message: bytes) -> bool:
        """Take a message; False when the session cannot go on."""
        try:
            event = codec.decode(message)
        except PeerProtocolError:
            return False
        self._conversation.receive(event, now=self._now)
        self._carry_out()
        return not self._fatal

    def meanwhile(self) -> None:
        """Time passes; the caller speaks; the gateway and functions answer."""
        random = self._random
        if random.random() < 0.5:
            self._now += random.choice((0.0, 0.001, 0.02, 0.4, 2.0, 20.0))
        due = self._conversation.next_timer()
        if due is not None and due <= self._now:
            self._conversation.timer(now=self._now)
        if random.random() < 0.3:
            self._media_ms += random.choice((20, 20, 40, 2_000, -20))
            self._clock.receive(160, self._media_ms, 1_000 * max(0, self._media_ms), now=self._now)
        if random.random() < 0.1:
            self._conversation.positions_fixed(_positions(random, self._items))
        if self._calls and random.random() < 0.3:
            call_id = self._calls.pop(random.randrange(len(self._calls)))
            self._conversation.tool_returned(call_id, mutate.text(random)[:4_000], now=self._now)
        self._carry_out()

    def end(self) -> None:
        random = self._random
        if random.random() < 0.5:
            self._conversation.caller_left(now=self._now)
        failed = random.random() < 0.5
        self._conversation.finish(failed=failed)
        self._carry_out()
        self._conversation.positions_fixed(_positions(random, self._items))
        self._carry_out()
        self._conversation.ended("over", failed=failed)
        self._carry_out()

    def _carry_out(self) -> None:
        for output in self._conversation.take():
            match output:
                case ToModel(event):
                    _check_to_model(codec.encode(event))
                case ToCaller(item_id, content_index, payload, last):
                    self._items.append(item_id)
                    _check_audio(item_id, content_index, payload, last)
                case WriteFact(name, body):
                    self._writer.write(**{name: body})
                case CallTool(call_id):
                    self._calls.append(call_id)
                case Interrupt(interrupt_id):
                    if not 0 < interrupt_id < 2**32:
                        raise Broken("an interrupt without a number")
                case Fatal():
                    self._fatal = True


class _Connection:
    """The model's socket: says what it has to say, then ends or waits to be ended."""

    def __init__(self, random: Random, messages: list[bytes]) -> None:
        self._random = random
        self._messages = messages
        self.over = asyncio.Event()
        self.meanwhile: Callable[[], None] = lambda: None

    def send(self, data: bytes) -> None:
        _check_to_model(data)

    async def run(self, on_message: Callable[[bytes], None]) -> Closed:
        try:
            for message in self._messages:
                on_message(message)
                self.meanwhile()
                if self._random.random() < 0.2:
                    await asyncio.sleep(0)
        finally:
            self.over.set()
        if self._random.random() < 0.5:
            await asyncio.Event().wait()
        return Closed(self._random.choice((1000, 1001, 1006, 3000)), mutate.text(self._random))

    async def close(self) -> None:
        self.over.set()

    def abort(self) -> None:
        self.over.set()


class _Outlet(Outlet):
    """The way to the gateway."""

    def __init__(self) -> None:
        self.items = ["item_1"]

    def audio(self, item_id: str, content_index: int, payload: bytes, last: bool) -> None:
        self.items.append(item_id)
        _check_audio(item_id, content_index, payload, last)

    def interrupt(self, interrupt: session_service_pb2.Interrupt) -> None:
        interrupt.SerializeToString()

    def finished(
        self, outcome: fact_pb2.CallOutcome.ValueType, detail: str, *, told: bool = False
    ) -> None:
        finished = session_service_pb2.CallFinished(outcome=outcome, detail=detail)
        if finished.ByteSize() > 8_192:
            raise Broken("the reason of an end is not bounded")


class _Tools(ToolRunner):
    """Functions that answer at once."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def call(self, name: str, arguments: str) -> ToolResult:
        await asyncio.sleep(0)
        return ToolResult(mutate.text(self._random)[:4_000], "ok", 1)


async def _refine(speech: Speech) -> WordTimes | None:
    await asyncio.sleep(0)
    return ProportionalSource().word_times(speech) if len(speech.text) < 5_000 else None


def _gateway_says(random: Random, call: Call, outlet: _Outlet) -> None:
    if random.random() < 0.1:
        call.receive_positions(_positions(random, outlet.items))
    if random.random() < 0.3:
        frame = base64.b64encode(random.randbytes(random.choice((160, 160, 0, 1, 1_600))))
        if random.random() < 0.05:
            frame = mutate.mutated_bytes(random, frame)
        at = random.choice((0, 20, 40, 1_000, LATEST_MS - 1))
        call.input.receive(frame, at, 1_000 * at, 0.001 * at)


def _positions(random: Random, items: list[str]) -> session_service_pb2.PositionsFixed:
    return session_service_pb2.PositionsFixed(
        interrupt_id=random.choice((0, 1, 2, 3, 2**32 - 1)),
        cause=random.choice(_POSITION_CAUSES),
        positions=[
            transcript_pb2.ItemPosition(
                item_id=random.choice(items[-20:]),
                content_index=random.choice((0, 0, 0, 1, 2**31 - 1)),
                best_ms=(best := random.choice((-1, 0, 1, 100, 900, 5_000, 2**62))),
                low_ms=best,
                high_ms=best,
            )
            for _ in range(random.randrange(4))
        ],
    )


def _check_to_model(data: bytes) -> None:
    if len(data) > MAX_TO_MODEL_BYTES:
        raise Broken(f"an event of {len(data)} bytes to the model")
    try:
        event = json.loads(data)
    except ValueError as error:
        raise Broken("what goes to the model is no JSON") from error
    if not isinstance(event.get("type"), str):
        raise Broken("what goes to the model is no event")


def _check_audio(item_id: str, content_index: int, payload: bytes, last: bool) -> None:
    message = session_service_pb2.AgentAudio(
        call=1, item_id=item_id, content_index=content_index, payload=payload, last=last
    )
    if message.ByteSize() > MAX_PIECE_BYTES:
        raise Broken("a piece of audio larger than a message takes")
    base64.b64decode(payload, validate=True)


def _odd(random: Random, event: Any) -> Any:
    for _ in range(random.choice((1, 1, 2))):
        event = mutate.mutated(random, event)
    if random.random() < 0.1 and isinstance(event, dict) and "delta" in event:
        event["delta"] = random.choice(("word " * 200_000, "////" * 300_000, "é" * 70_000, "/" * 7))
    return event


def _meeting(random: Random, session: list[Any]) -> list[Any]:
    """The same events with few ids, so that those of several sessions are about the same things."""
    few = [f"{kind}_{n}" for kind in ("item", "resp", "call") for n in range(random.choice((1, 3)))]
    names: dict[str, str] = {}

    def renamed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: renamed(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [renamed(inner, key) for inner in value]
        if key in _IDS and isinstance(value, str):
            return names.setdefault(value, random.choice(few))
        return value

    return [renamed(event) for event in session]
