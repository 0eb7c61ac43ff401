"""Whatever the model, the gateway and the caller do, in whatever order: the rules hold."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asheard.v1 import fact_pb2
from session.realtime import events
from session.realtime.outputs import ToCaller
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


class AnyOrder(RuleBasedStateMachine):
    """Events of all kinds in any order, legal for the API or not."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(GREETER)
        self.received_ms: Counter[str] = Counter()
        self.interrupted: set[str] = set()
        self.alive: set[str] = set()
        self.ended: set[str] = set()
        self.over = False

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
        self.received_ms[item_id] += ms
        if response_id in self.interrupted or response_id in self.ended:
            assert len(self.talk.of(ToCaller)) == before, "stale audio reached the caller"

    @precondition(lambda self: not self.over)
    @rule(response_id=RESPONSES, item_id=ITEMS)
    def text(self, response_id: str, item_id: str) -> None:
        self.talk.text(response_id, item_id, " word")
        self._alive(response_id)

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
        self.interrupted |= self.alive

    @precondition(lambda self: not self.over)
    @rule(item_id=CALLERS)
    def caller_stops(self, item_id: str) -> None:
        self.talk.caller_stops(item_id)

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

    @invariant()
    def cut_once_and_within_what_was_received(self) -> None:
        cuts = Counter(item_id for item_id, _ in self.talk.truncations)
        cuts.update(self.talk.deletions)
        assert all(n == 1 for n in cuts.values()), cuts
        for item_id, audio_end_ms in self.talk.truncations:
            assert 0 <= audio_end_ms < self.received_ms[item_id]

    @invariant()
    def generated_at_most_once_and_with_all_that_came(self) -> None:
        facts = self.talk.facts("item_generated")
        assert max(Counter(f.item_id for f in facts).values(), default=0) <= 1
        assert all(f.audio_ms <= self.received_ms[f.item_id] for f in facts)
        assert (
            max(Counter(f.item_id for f in self.talk.facts("item_added")).values(), default=0) <= 1
        )

    @invariant()
    def asks_only_when_the_line_is_quiet(self) -> None:
        ids = [event.event_id for event in self.talk.sent]
        assert len(ids) == len(set(ids))
        if self.over:
            announced = {f.item_id for f in self.talk.facts("item_added")}
            generated = {f.item_id for f in self.talk.facts("item_generated")}
            assert {i for i in announced if not i.startswith("U")} == generated

    def teardown(self) -> None:
        self.talk.end("over", failed=False)
        names = [name for name, _ in self.talk.all_facts()]
        assert names[0] == "session_started"
        assert names.index("session_ended") == len(names) - 1
        cuts = [e for e in self.talk.sent if isinstance(e, events.TruncateItem | events.DeleteItem)]
        told = self.talk.facts("item_truncated") + self.talk.facts("item_deleted")
        assert len(told) == len(cuts), "every cut is recorded with its answer, or with none"


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
