"""A whole call in virtual time: the worker's conversation between the two simulators.

The model's end, the carrier and the caller are the simulators' own machines; what lies between is
the real :class:`~session.realtime.conversation.Conversation`, with a gateway that is never late and
always knows exactly what was played. So an order of events is the same at every run, a minute of a
call takes some tenths of a second, and the line itself says how long nobody spoke.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from asheard.v1 import fact_pb2, session_service_pb2, transcript_pb2
from session.agent import Agent, parse_agent
from session.notices import Notice, NoticeBook, Sentence
from session.realtime import codec
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import (
    CallTool,
    CancelTool,
    Fatal,
    Interrupt,
    Output,
    ToCaller,
    ToModel,
    WriteFact,
)
from simulators.realtime.engine import Engine
from simulators.realtime.script import AgentScript
from simulators.speech import spoken
from simulators.speech.g711 import BYTES_PER_MS
from simulators.twilio.caller import Caller
from simulators.twilio.carrier import Carrier
from simulators.twilio.script import CallerScript

T = TypeVar("T", bound=Message)

STEP_MS = 5
"""How often everybody is looked at; a quarter of a frame."""

EPOCH_S = 1_000.0
"""Monotonic time of the stream's beginning."""

BOOK: NoticeBook = {
    notice: Sentence.of(text, spoken(text).ulaw)
    for notice, text in (
        (Notice.HOLD, "One moment, please."),
        (Notice.SORRY, "I am sorry, something went wrong. Could you say that again?"),
        (Notice.GOODBYE, "We are sorry, we cannot continue this call."),
    )
}


def bakery(more: str = "") -> Agent:
    """An agent that greets and can quote a price, with more keys of an agent file."""
    return parse_agent(
        "name: bakery\n"
        "instructions: You take orders.\n"
        "greeting: Greet the caller.\n"
        "transcription: {model: gpt-4o-transcribe}\n"
        "tools:\n"
        "  - {name: quote, description: Price of an order., parameters: {type: object},"
        " url: 'http://127.0.0.1:9000/quote'}\n" + more,
        name="inline",
    )


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody spoke."""

    start_ms: int
    end_ms: int
    before: str
    """Whose sound came before: ``agent``, ``caller``, or nobody's."""

    @property
    def lasted_ms(self) -> int:
        """How long it was."""
        return self.end_ms - self.start_ms


@dataclass(slots=True)
class _Part:
    """A part of an item, as the gateway was given it."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    """Positions of its bytes in all audio that the carrier took."""
    whole: bool = False
    fixed: bool = False

    def played_bytes(self, position: int) -> int:
        return sum(max(0, min(end, position) - start) for start, end in self.ranges)

    @property
    def end(self) -> int:
        return self.ranges[-1][1] if self.ranges else 0


class VirtualCall:
    """One call; :meth:`run` plays it.

    Args:
        model: What the model does.
        caller: What the caller does.
        agent: Who answers.
        tool_ms: How long each call of a function takes, in order; the last one stands for all after.
        tool_answers: What each function answers; ``{}`` if not named.
        number: Of the session, for faults that are drawn.
    """

    def __init__(
        self,
        model: AgentScript,
        caller: CallerScript,
        agent: Agent | None = None,
        *,
        tool_ms: tuple[int, ...] = (300,),
        tool_answers: Mapping[str, str] | None = None,
        number: int = 0,
    ) -> None:
        self.now_ms = 0
        self.carrier = Carrier(first_timestamp_ms=0)
        self.engine = Engine(model, number=number)
        self.caller = Caller(caller)
        self.facts: list[WriteFact] = []
        self.calls: list[CallTool] = []
        self.cancelled_calls: list[str] = []
        self.fatal: str | None = None
        self.hung_up_ms: int | None = None
        self._clock = InputClock()
        self._conversation = Conversation(
            agent or bakery(), "gpt-test", self._clock, notices=BOOK, tag="v"
        )
        self._tool_ms = tool_ms
        self._tool_answers = tool_answers or {}
        self._returns: list[tuple[int, CallTool]] = []
        self._parts: dict[tuple[str, int], _Part] = {}
        self._conversation.open()
        self._carry_out()

    # --- playing ----------------------------------------------------------------------------

    def run(self, ms: int = 120_000) -> VirtualCall:
        """Play so much of the call, or until one side ends it."""
        until_ms = self.now_ms + ms
        while self.now_ms < until_ms and self.hung_up_ms is None and self.fatal is None:
            self.now_ms += STEP_MS
            self._hear_caller()
            self._hear_model()
            self._return_from_functions()
            due = self._conversation.next_timer()
            if due is not None and due <= self._now:
                self._conversation.timer(now=self._now)
                self._carry_out()
            self._fix_played()
        return self

    @property
    def _now(self) -> float:
        return EPOCH_S + self.now_ms / 1000

    def _hear_caller(self) -> None:
        self.carrier.advance(self.now_ms)
        if self.caller.listen(self.carrier, self.now_ms, call_ms=self.now_ms) is not None:
            self.carrier.hang_up(self.now_ms)
            self.hung_up_ms = self.now_ms
            self._conversation.caller_left(now=self._now)
            self._carry_out()
        for outgoing in self.carrier.take():
            if outgoing.message["event"] == "media":
                media = outgoing.message["media"]
                audio = base64.b64decode(media["payload"])
                media_ms = int(media["timestamp"])
                self._clock.receive(len(audio), media_ms, 1_000 * media_ms, self._now)
                if self._conversation.configured:
                    append = {"type": "input_audio_buffer.append", "audio": media["payload"]}
                    self.engine.receive(json.dumps(append), self.now_ms)

    def _hear_model(self) -> None:
        self.engine.advance(self.now_ms)
        for sent in self.engine.take():
            frame = sent if isinstance(sent, str) else json.dumps(sent)
            self._conversation.receive(codec.decode(frame), now=self._now)
            self._carry_out()

    def _return_from_functions(self) -> None:
        for at_ms, call in list(self._returns):
            if at_ms <= self.now_ms:
                self._returns.remove((at_ms, call))
                answer = self._tool_answers.get(call.name, "{}")
                self._conversation.tool_returned(call.call_id, answer, now=self._now)
                self._carry_out()

    def _carry_out(self) -> None:
        for output in self._conversation.take():
            self._do(output)

    def _do(self, output: Output) -> None:
        match output:
            case ToModel(event):
                self.engine.receive(codec.encode(event).decode(), self.now_ms)
            case ToCaller():
                self._give(output)
            case Interrupt(interrupt_id):
                self._clear(interrupt_id)
            case WriteFact():
                self.facts.append(output)
            case CallTool():
                took_ms = self._tool_ms[min(len(self.calls), len(self._tool_ms) - 1)]
                self.calls.append(output)
                self._returns.append((self.now_ms + took_ms, output))
            case CancelTool(call_id):
                self.cancelled_calls.append(call_id)
                self._returns = [r for r in self._returns if r[1].call_id != call_id]
            case Fatal(reason):
                self.fatal = reason

    # --- the gateway ------------------------------------------------------------------------

    def _give(self, audio: ToCaller) -> None:
        part = self._parts.setdefault((audio.item_id, audio.content_index), _Part())
        if audio.payload:
            start = self.carrier.received_bytes
            self._tell_carrier("media", {"payload": audio.payload.decode()})
            part.ranges.append((start, self.carrier.received_bytes))
        part.whole = part.whole or audio.last

    def _clear(self, interrupt_id: int) -> None:
        self.carrier.advance(self.now_ms)
        position = self.carrier.position
        self._tell_carrier("clear", None)
        self._fix(
            {key: part for key, part in self._parts.items() if not part.fixed},
            position,
            fact_pb2.POSITION_CAUSE_CLEARED,
            interrupt_id,
        )

    def _fix_played(self) -> None:
        position = self.carrier.position
        played = {
            key: part
            for key, part in self._parts.items()
            if part.whole and not part.fixed and part.end <= position
        }
        if played:
            self._fix(played, position, fact_pb2.POSITION_CAUSE_PLAYED, 0)

    def _fix(
        self,
        parts: dict[tuple[str, int], _Part],
        position: int,
        cause: fact_pb2.PositionCause.ValueType,
        interrupt_id: int,
    ) -> None:
        positions = []
        for (item_id, content_index), part in parts.items():
            part.fixed = True
            ms = part.played_bytes(position) // BYTES_PER_MS
            positions.append(
                transcript_pb2.ItemPosition(
                    item_id=item_id, content_index=content_index, low_ms=ms, best_ms=ms, high_ms=ms
                )
            )
        self._conversation.positions_fixed(
            session_service_pb2.PositionsFixed(
                interrupt_id=interrupt_id, positions=positions, cause=cause
            )
        )
        self._carry_out()

    def _tell_carrier(self, event: str, body: Mapping[str, str] | None) -> None:
        message: dict[str, object] = {"event": event, "streamSid": self.carrier.stream_sid}
        if body is not None:
            message[event] = body
        self.carrier.receive(json.dumps(message), self.now_ms)

    # --- what came of it --------------------------------------------------------------------

    def of(self, name: str, kind: type[T]) -> list[T]:
        """All facts of a name so far."""
        return [f.body for f in self.facts if f.name == name and isinstance(f.body, kind)]

    @property
    def heard(self) -> list[str]:
        """Words of the agent that sounded to their end, by the item they belong to; notices too."""
        texts = {n.item_id: n for n in self.of("item_generated", fact_pb2.ItemGenerated)}
        lines = []
        for (item_id, _), part in self._parts.items():
            played = sum(
                max(0, min(end, s.end_byte) - max(start, s.start_byte))
                for start, end in part.ranges
                for s in self.carrier.truth.played
            )
            lines.append(_words_until(self._planned(item_id, texts), played // BYTES_PER_MS))
        return [line for line in lines if line]

    def _planned(self, item_id: str, texts: Mapping[str, fact_pb2.ItemGenerated]) -> str:
        for item in self.engine.truth.agent_items:
            if item.item_id == item_id:
                return item.planned_text
        return texts[item_id].text if item_id in texts else ""

    @property
    def silences(self) -> list[Silence]:
        """Stretches in which nobody spoke, from the beginning of the call to its end."""
        truth = self.carrier.truth
        sounds = [(s.start_ms, s.end_ms, "agent") for s in truth.played]
        sounds += [(c.onset_ms, c.end_ms, "caller") for c in truth.caller_lines]
        sounds += [(n.start_ms, n.end_ms, "noise") for n in truth.noises]
        found, quiet_from, before = [], 0, ""
        for start_ms, end_ms, who in [*sorted(sounds), (self.now_ms, self.now_ms, "")]:
            if start_ms > quiet_from:
                found.append(Silence(quiet_from, start_ms, before))
            if end_ms > quiet_from:
                quiet_from, before = end_ms, who
        return found

    @property
    def dead_air(self) -> list[fact_pb2.DeadAir]:
        """Silences of two seconds and more as the conversation has written them down."""
        return self.of("dead_air", fact_pb2.DeadAir)


def _words_until(text: str, ms: int) -> str:
    return " ".join(word for word, _, end_ms in spoken(text).words if end_ms <= ms)
