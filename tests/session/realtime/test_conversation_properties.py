"""Whatever the model, the gateway and the caller do, in whatever order: the rules hold."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asheard.v1 import fact_pb2, transcript_pb2
from session.realtime import codec, events
from session.realtime.bounds import MAX_PARTS, MAX_PIECE_CHARS, MAX_TEXT_CHARS
from session.realtime.outputs import AudioReceived, ToCaller, ToModel, WriteFact
from tests.examples import examples
from tests.session.realtime.talk import GREETER, Talk

RESPONSES = st.sampled_from(["R1", "R2", "R3"])
ITEMS = st.sampled_from(["A", "B", "C", "D"])
CALLERS = st.sampled_from(["U1", "U2"])
MILLISECONDS = st.integers(0, 700)
CAUSES = st.sampled_from(
    [
        fact_pb2.POSITION_CAUSE_PLAYED,
        fact_pb2.POSITION_CAUSE_CLEARED,
        fact_pb2.POSITION_CAUSE_HUNG_UP,
    ]
)
STATUSES = st.sampled_from(["completed", "cancelled", "incomplete", "failed"])
KINDS = st.sampled_from(
    sorted({str(struct.__struct_config__.tag) for struct in events.AnyServerEvent.__args__})
)
INDEXES = st.one_of(
    st.integers(0, 2),
    st.sampled_from([MAX_PARTS - 1, MAX_PARTS, -1, 2**31, 2**70, 1.0, "1", None]),
)
LONG_AND_ODD = ("word " * 20_000, "\x00", "\ud800", "\N{GRINNING FACE}" * 1000)
TEXTS = st.one_of(st.text(max_size=12), st.integers(0, 3).map(lambda n: LONG_AND_ODD[n]))
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["id", "type", "error", "audio"]), st.integers(), max_size=2),
)
ITEM_FIELDS = st.fixed_dictionaries(
    {"id": ITEMS},
    optional={
        "type": st.sampled_from(["message", "function_call", "mcp_call"]),
        "role": st.sampled_from(["assistant", "user", "system", None]),
        "status": st.sampled_from(["completed", "incomplete", "in_progress", None]),
        "call_id": st.sampled_from(["call_1", "call_2"]),
        "arguments": st.one_of(st.sampled_from(["", "{}", '{"half']), JUNK),
        "content": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["audio", "output_audio", "output_text", "input_audio"])},
                optional={"transcript": TEXTS, "text": TEXTS},
            ),
            max_size=3,
        ),
    },
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "item_id": st.one_of(ITEMS, CALLERS, JUNK),
        "response_id": st.one_of(RESPONSES, JUNK),
        "previous_item_id": st.one_of(ITEMS, JUNK),
        "content_index": INDEXES,
        "delta": TEXTS,
        "transcript": TEXTS,
        "arguments": JUNK,
        "call_id": st.sampled_from(["call_1", "call_2"]),
        "audio_start_ms": JUNK,
        "audio_end_ms": JUNK,
        "part": JUNK,
        "item": st.one_of(ITEM_FIELDS, JUNK),
        "response": st.one_of(
            st.fixed_dictionaries(
                {},
                optional={
                    "id": RESPONSES,
                    "status": st.one_of(STATUSES, JUNK),
                    "status_details": JUNK,
                    "usage": JUNK,
                    "output": st.lists(st.one_of(ITEM_FIELDS, JUNK), max_size=3),
                },
            ),
            JUNK,
        ),
        "error": st.one_of(
            st.fixed_dictionaries({"code": JUNK, "message": TEXTS, "event_id": JUNK}), JUNK
        ),
        "session": JUNK,
        "rate_limits": st.lists(
            st.fixed_dictionaries({}, optional={"limit": JUNK, "remaining": JUNK}), max_size=2
        ),
    },
)


class AnyOrder(RuleBasedStateMachine):
    """Events of all kinds in any order, legal for the API or not."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(GREETER)
        self.received_bytes: Counter[tuple[str, int]] = Counter()
        self.counted = 0
        """Outputs that are in it."""
        self.interrupted: set[str] = set()
        self.alive: set[str] = set()
        self.ended: set[str] = set()
        self.over = False
        self.speaking = False
        self.requests = len(self.talk.requests)
        self.seeded: set[str] = set()
        """Items that the server says are complete as they are: nobody generates them."""

    def _alive(self, response_id: str) -> None:
        if response_id not in self.ended:
            self.alive.add(response_id)

    @precondition(lambda self: not self.over)
    @rule(response_id=RESPONSES)
    def response_created(self, response_id: str) -> None:
        self.talk.response(response_id)
        self._alive(response_id)

    @precondition(lambda self: not self.over)
    @rule(response_id=RESPONSES, item_id=ITEMS)
    def item_added(self, response_id: str, item_id: str) -> None:
        self.talk.item(response_id, item_id)
        self._alive(response_id)

    @precondition(lambda self: not self.over)
    @rule(response_id=RESPONSES, item_id=ITEMS, ms=MILLISECONDS)
    def audio(self, response_id: str, item_id: str, ms: int) -> None:
        before = len(self.talk.of(ToCaller))
        self._alive(response_id)
        self.talk.audio(response_id, item_id, ms)
        if response_id in self.interrupted or response_id in self.ended:
            assert len(self.talk.of(ToCaller)) == before, "stale audio reached the caller"

    @precondition(lambda self: not self.over)
    @rule(response_id=RESPONSES, item_id=ITEMS)
    def text(self, response_id: str, item_id: str) -> None:
        self.talk.text(response_id, item_id, " word")  # of an item that is over it begins nothing

    @precondition(lambda self: not self.over)
    @rule(response_id=RESPONSES, item_id=ITEMS, complete=st.booleans())
    def item_done(self, response_id: str, item_id: str, complete: bool) -> None:
        status = "completed" if complete else "incomplete"
        self.talk.item_done(response_id, item_id, "text", status=status)
        self._alive(response_id)

    @precondition(lambda self: not self.over)
    @rule(response_id=RESPONSES, status=STATUSES)
    def response_done(self, response_id: str, status: str) -> None:
        self.talk.response_done(response_id, status)
        self.alive.discard(response_id)
        self.ended.add(response_id)

    @precondition(lambda self: not self.over)
    @rule(item_id=CALLERS)
    def caller_speaks(self, item_id: str) -> None:
        self.talk.caller_speaks(item_id)
        self.speaking = True
        self.interrupted |= self.alive

    @precondition(lambda self: not self.over)
    @rule(item_id=CALLERS)
    def caller_stops(self, item_id: str) -> None:
        self.talk.caller_stops(item_id)
        self.speaking = False

    @rule(
        heard=st.lists(st.tuples(ITEMS, MILLISECONDS), max_size=4),
        interrupt_id=st.integers(0, 4),
        cause=CAUSES,
    )
    def positions(
        self,
        heard: list[tuple[str, int]],
        interrupt_id: int,
        cause: fact_pb2.PositionCause.ValueType,
    ) -> None:
        self.talk.positions(*heard, interrupt_id=interrupt_id, cause=cause)

    @precondition(lambda self: not self.over)
    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        self.talk.later(seconds)

    @precondition(lambda self: not self.over)
    @rule(item_id=ITEMS, deletion=st.booleans())
    def answered(self, item_id: str, deletion: bool) -> None:
        kind = "deleted" if deletion else "truncated"
        self.talk.server(f"conversation.item.{kind}", item_id=item_id)

    @precondition(lambda self: not self.over)
    @rule(which=st.integers(0, 20))
    def refused(self, which: int) -> None:
        sent = self.talk.sent
        if sent:
            self.talk.server("error", error={"event_id": sent[which % len(sent)].event_id})

    @precondition(lambda self: not self.over)
    @rule(failed=st.booleans())
    def end(self, failed: bool) -> None:
        self.over = True
        self.talk.hang_up()
        self.talk.finish(failed=failed)

    def _received_ms(self, item_id: str, content_index: int) -> int:
        """How much audio of a part came, stale or not."""
        for output in self.talk.outputs[self.counted :]:
            if isinstance(output, AudioReceived):
                key = output.item_id, output.content_index
                self.received_bytes[key] += len(base64.b64decode(output.payload))
        self.counted = len(self.talk.outputs)
        return self.received_bytes[item_id, content_index] // 8

    @invariant()
    def cut_once_and_within_what_was_received(self) -> None:
        cuts = Counter(item_id for item_id, _ in self.talk.truncations)
        cuts.update(self.talk.deletions)
        assert all(n == 1 for n in cuts.values()), cuts
        for event in self.talk.sent:
            if isinstance(event, events.TruncateItem):
                received_ms = self._received_ms(event.item_id, event.content_index)
                assert 0 <= event.audio_end_ms < received_ms

    @invariant()
    def what_was_generated_is_said_once_and_again_only_with_more_text(self) -> None:
        longest: dict[tuple[str, int], str] = {}
        for fact in self.talk.facts("item_generated"):
            before = longest.get((fact.item_id, fact.content_index))
            assert before is None or len(fact.text) > len(before)
            assert len(fact.text) <= MAX_TEXT_CHARS
            assert fact.audio_ms <= self._received_ms(fact.item_id, fact.content_index)
            longest[fact.item_id, fact.content_index] = fact.text
        added = Counter(f.item_id for f in self.talk.facts("item_added"))
        assert max(added.values(), default=0) <= 1

    @invariant()
    def asks_only_when_the_line_is_quiet(self) -> None:
        requests = len(self.talk.requests)
        if requests > self.requests:
            assert requests == self.requests + 1
            assert not self.talk.responding
            assert not self.speaking
            self.requests = requests

    @invariant()
    def no_two_events_have_the_same_id(self) -> None:
        ids = [event.event_id for event in self.talk.sent]
        assert len(ids) == len(set(ids))

    @invariant()
    def all_that_was_spoken_is_reported_in_the_end(self) -> None:
        if self.over:
            spoken = {
                f.item_id
                for f in self.talk.facts("item_added")
                if f.role == transcript_pb2.ROLE_AGENT
            }
            generated = {f.item_id for f in self.talk.facts("item_generated")}
            assert spoken - self.seeded == generated

    def teardown(self) -> None:
        self.talk.end("over", failed=False)
        names = [name for name, _ in self.talk.all_facts()]
        assert names[0] == "session_started"
        assert names.index("session_ended") == len(names) - 1
        cuts = [e for e in self.talk.sent if isinstance(e, events.TruncateItem | events.DeleteItem)]
        told = self.talk.facts("item_truncated") + self.talk.facts("item_deleted")
        assert len(told) == len(cuts), "every cut is recorded with its answer, or with none"


class AnyEvent(AnyOrder):
    """The same, with events of any shape among them."""

    @precondition(lambda self: not self.over)
    @rule(kind=KINDS, body=BODIES)
    def odd_event(self, kind: str, body: dict[str, Any]) -> None:
        self._odd(json.dumps({"type": kind, **body}))

    @precondition(lambda self: not self.over)
    @rule(kind=KINDS, body=BODIES, at=st.integers(0, 200), junk=st.binary(max_size=3))
    def torn_event(self, kind: str, body: dict[str, Any], at: int, junk: bytes) -> None:
        whole = json.dumps({"type": kind, **body}).encode()
        self._odd(whole[:at] + junk + whole[at:])

    def _odd(self, data: str | bytes) -> None:
        event = codec.decode(data)
        # What the machine may not lose sight of is what the other rules count.
        if isinstance(event, events.ItemAdded) and event.item.status == "completed":
            self.seeded.add(event.item.id)
        self.talk.conversation.receive(event, now=self.talk.now)
        self.talk.take()
        if isinstance(event, events.ResponseDone) and event.response.id:
            self.alive.discard(event.response.id)
            self.ended.add(event.response.id)
        elif isinstance(event, events.SpeechStarted):
            self.interrupted |= self.alive
            self.speaking = True
        elif isinstance(event, events.SpeechStopped | events.Committed):
            self.speaking = False

    def teardown(self) -> None:
        super().teardown()
        for output in self.talk.outputs:
            if isinstance(output, ToModel):
                assert codec.encode(output.event)
            elif isinstance(output, WriteFact):
                assert output.body.SerializeToString() is not None
            elif isinstance(output, ToCaller):
                assert 0 <= output.content_index < MAX_PARTS
                assert len(output.payload) <= MAX_PIECE_CHARS
        for call in self.talk.tool_calls:
            assert len([c for c in self.talk.tool_calls if c.call_id == call.call_id]) == 1


AnyOrder.TestCase.settings = settings(
    max_examples=examples(150), stateful_step_count=40, deadline=None
)
TestAnyOrder = AnyOrder.TestCase
AnyEvent.TestCase.settings = settings(
    max_examples=examples(100), stateful_step_count=40, deadline=None
)
TestAnyEvent = AnyEvent.TestCase
