"""What was heard: the code does what the tables of ``interruptions`` say, in any order."""

from __future__ import annotations

import base64

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from asheard.v1 import fact_pb2, session_service_pb2, transcript_pb2
from session.realtime import interruptions
from session.realtime.cuts import Cuts
from session.realtime.events import DeleteItem, TruncateItem
from session.realtime.interruptions import Interruptions
from session.realtime.outputs import (
    AudioReceived,
    Interrupt,
    Output,
    Outputs,
    PartCut,
    PartPlayed,
    ToModel,
)
from session.realtime.parts import Parts
from session.realtime.state import Item, Memory, Part, PartState, Response
from tests.examples import examples
from tests.session.realtime.talk import Talk

NOW = 100.0
MS_20 = base64.b64encode(b"\x55" * 160)
PLAYED = fact_pb2.POSITION_CAUSE_PLAYED
CLEARED = fact_pb2.POSITION_CAUSE_CLEARED
HUNG_UP = fact_pb2.POSITION_CAUSE_HUNG_UP


class OnePart:
    """A part of 500 ms in an item of a response that is under way, in some state."""

    def __init__(self, state: PartState, *, asked: bool = False) -> None:
        self.outputs = Outputs()
        self.memory = Memory(held_bytes=4000)
        self.subject = Interruptions(self.memory, Cuts(), self.outputs)
        self.parts = Parts(self.memory, self.subject, self.outputs)
        self.response = Response("R", items=["A"])
        self.item = Item("A", "R", speech=True, parts={0: Part(received_bytes=4000)})
        self.part = self.item.part(0)
        self.memory.responses["R"] = self.response
        self.memory.items["A"] = self.item
        self.part.sent = state is not PartState.UNSENT
        if asked:
            self.speech()
        self.part.position_ms = 500 if state is PartState.CUT else None
        self.part.settled = state is PartState.SETTLED
        self.outputs.take()
        assert self.part.state is state

    def speech(self) -> None:
        self.subject.interrupt(0, now=NOW)

    def audio(self, *, stale: bool) -> None:
        self.parts.audio(self.item, 0, MS_20, 160, stale=stale, now=NOW)

    def position(self, cause: fact_pb2.PositionCause.ValueType, *best_ms: int) -> None:
        self.subject.positions_fixed(
            session_service_pb2.PositionsFixed(
                interrupt_id=1,
                cause=cause,
                positions=[transcript_pb2.ItemPosition(item_id="A", best_ms=ms) for ms in best_ms],
            )
        )

    def item_over(self) -> None:
        self.item.done = self.item.completed = True
        self.parts.over(self.item)

    def all_over(self) -> None:
        self.item.done = True
        del self.memory.responses["R"]

    def response_over(self) -> None:
        self.all_over()
        self.subject.response_over(self.item)


def what_happens(
    event: str, state: PartState, *, notice: bool = False
) -> tuple[PartState, list[str]]:
    """The state after an event, and what the event wanted done about what was heard."""
    one = OnePart(state, asked=event.startswith("not in"))
    one.item.notice = notice
    match event:
        case "audio goes to the caller":
            one.audio(stale=False)
        case "stale audio came":
            one.audio(stale=True)
        case "the caller speaks":
            one.speech()
        case "position: played to its end":
            one.position(PLAYED, 500)
        case "position: the line was cleared":
            one.position(CLEARED, 200)
        case "not in the interrupt's answer":
            one.all_over()
            one.position(CLEARED)
        case "position: the stream is gone":
            one.position(HUNG_UP, 200)
        case "its item is over":
            one.item_over()
        case "its response is over":
            one.response_over()
        case "its item is deleted or forgotten":
            one.parts.forget(one.item)
        case _:
            raise AssertionError(event)
    return one.part.state, said(one.outputs.take())


def said(outputs: list[Output]) -> list[str]:
    """What is wanted about what was heard, in short."""
    kinds = [o.event if isinstance(o, ToModel) else o for o in outputs]
    about = (Interrupt, TruncateItem, DeleteItem, PartCut, PartPlayed)
    return [type(kind).__name__ for kind in kinds if isinstance(kind, about)]


def table() -> list[tuple[str, PartState, str]]:
    """Event, state and what follows, from the text of the module."""
    lines = (interruptions.__doc__ or "").splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("what happens"))
    states = [PartState[name] for name in lines[begin].split()[2:]]
    rows = lines[begin + 2 :]
    rows = rows[: next(n for n, line in enumerate(rows) if line.startswith("="))]
    starts = [n for n, _ in enumerate(lines[begin - 1]) if lines[begin - 1][n - 1 : n + 1] == " ="]
    assert len(starts) == len(states)
    return [
        (row[: starts[0]].strip(), state, row[start : start + 12].strip())
        for row in rows
        for state, start in zip(states, starts, strict=True)
    ]


@pytest.mark.parametrize(("event", "state", "follows"), table())
def test_the_code_does_what_the_table_says(event: str, state: PartState, follows: str) -> None:
    after, wanted = what_happens(event, state)
    match follows:
        case ".":
            assert (after, wanted) == (state, [])
        case "GIVEN":
            assert (after, wanted) == (PartState.GIVEN, [])
        case "interrupt":
            assert (after, wanted) == (state, ["Interrupt"])
        case "SETTLED":
            assert after is PartState.SETTLED
            assert wanted in (["PartPlayed"], ["PartCut"]), "told nothing to the model"
        case "decide":
            assert after is PartState.SETTLED
            assert wanted in (["PartCut", "TruncateItem"], ["PartPlayed"])
        case "decide at 0" | "delete?":
            assert (after, wanted) == (PartState.SETTLED, ["PartPlayed", "DeleteItem"])
        case _:
            raise AssertionError(f"the table has {follows!r}")


@pytest.mark.parametrize(("event", "state", "follows"), table())
def test_a_notice_goes_through_the_same_states_and_the_model_is_told_nothing(
    event: str, state: PartState, follows: str
) -> None:
    after, wanted = what_happens(event, state, notice=True)
    expected, of_the_models = what_happens(event, state)
    assert after is expected
    told = ("TruncateItem", "DeleteItem")
    assert wanted == [kind for kind in of_the_models if kind not in told]


@pytest.mark.parametrize(
    ("position_ms", "item_over", "response_over", "after", "wanted"),
    [
        (0, False, False, PartState.CUT, []),
        (0, True, False, PartState.CUT, []),
        (0, True, True, PartState.SETTLED, ["PartPlayed", "DeleteItem"]),
        (500, False, False, PartState.CUT, []),
        (900, False, False, PartState.CUT, []),
        (500, True, True, PartState.SETTLED, ["PartPlayed"]),
        (900, True, False, PartState.SETTLED, ["PartPlayed"]),
        (1, False, False, PartState.SETTLED, ["PartCut", "TruncateItem"]),
        (499, True, True, PartState.SETTLED, ["PartCut", "TruncateItem"]),
    ],
)
def test_what_follows_from_a_position(
    position_ms: int, item_over: bool, response_over: bool, after: PartState, wanted: list[str]
) -> None:
    one = OnePart(PartState.GIVEN)
    one.item.done = one.item.completed = item_over
    if response_over:
        del one.memory.responses["R"]
    one.position(CLEARED, position_ms)
    assert (one.part.state, said(one.outputs.take())) == (after, wanted)


@pytest.mark.parametrize("why", ["heard", "may be playing", "settled", "text alone"])
def test_an_item_of_an_interrupted_response_that_is_not_deleted(why: str) -> None:
    one = OnePart(PartState.UNSENT)
    match why:
        case "heard":
            one.item.heard = True
        case "may be playing":
            one.item.parts[1] = Part(sent=True)
        case "settled":
            one.item.parts[1] = Part(settled=True)
        case "text alone":
            one.part.audible, one.part.text = False, "Written."
    one.response_over()
    assert said(one.outputs.take()) == []


def test_an_item_of_which_something_was_heard_is_cut_but_never_deleted() -> None:
    one = OnePart(PartState.GIVEN)
    one.item.heard = True  # of another part
    one.all_over()
    one.position(CLEARED, 0)
    assert said(one.outputs.take()) == ["PartPlayed", "TruncateItem"]


def test_a_part_is_settled_once_also_when_its_item_is_deleted() -> None:
    one = OnePart(PartState.GIVEN)
    one.item.parts[1] = Part(sent=True, settled=True)
    one.all_over()
    one.position(CLEARED, 0)
    assert said(one.outputs.take()) == ["PartPlayed", "DeleteItem"]


@pytest.mark.parametrize("position_ms", [0, 200])
def test_once_the_caller_has_left_the_model_is_told_nothing(position_ms: int) -> None:
    one = OnePart(PartState.GIVEN)
    one.memory.caller_left = True
    one.all_over()
    one.position(CLEARED, position_ms)
    assert said(one.outputs.take()) == [["PartPlayed"], ["PartCut"]][position_ms > 0]


BACK = st.integers(0, 1)
"""Of this turn, or of the one before it."""

INDEXES = st.sampled_from([0, 0, 1])
MILLISECONDS = st.sampled_from([0, 20, 100, 200])
Key = tuple[str, int]


class AnyInterleaving(RuleBasedStateMachine):
    """Audio, speech and positions in any order: late, twice, of nothing, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk()
        self.turn = 1
        self.steps = 0
        self.known: set[Key] = set()
        """Parts with audio or text: of others a position says nothing."""
        self.received_bytes: dict[Key, int] = {}
        self.position_ms: dict[Key, int] = {}
        """Where playback of a part was cut, as was said first."""
        self.heard: set[str] = set()
        self.answered: set[tuple[str, int]] = set()
        """Parts of which an answer has said where they stopped, if it was asked about them."""
        self.settled: set[Key] = set()
        self.deleted: set[str] = set()
        self.over: set[str] = set()
        """Items of responses that are over."""
        self.truncated: set[Key] = set()
        self.seen = 0

    def _names(self, back: int) -> tuple[str, str]:
        """A response and its item."""
        turn = max(1, self.turn - back)
        return f"R{turn}", f"A{turn}"

    @rule(back=BACK, index=INDEXES, ms=MILLISECONDS)
    def audio(self, back: int, index: int, ms: int) -> None:
        self.talk.audio(*self._names(back), ms, content_index=index)
        self._look()

    @rule(back=BACK)
    def text(self, back: int) -> None:
        self.known.add((self._names(back)[1], 0))
        self.talk.text(*self._names(back), " word")
        self._look()

    @rule(back=BACK, status=st.sampled_from(["completed", "incomplete"]))
    def item_over(self, back: int, status: str) -> None:
        self.known.add((self._names(back)[1], 0))
        self.talk.item_done(*self._names(back), "words", status=status)
        self._look()

    @rule(back=BACK, status=st.sampled_from(["completed", "cancelled"]))
    def response_over(self, back: int, status: str) -> None:
        response_id, item_id = self._names(back)
        self.over.add(item_id)
        self.talk.response_done(response_id, status)
        self.turn += not back
        self._look()

    @rule()
    def the_caller_speaks(self) -> None:
        self.talk.caller_speaks()
        self._look()

    @rule(
        where=st.lists(st.tuples(BACK, INDEXES, MILLISECONDS), max_size=3),
        names_interrupt=st.booleans(),
        cause=st.sampled_from([CLEARED, CLEARED, CLEARED, PLAYED, HUNG_UP]),
    )
    def positions(
        self,
        where: list[tuple[int, int, int]],
        names_interrupt: bool,
        cause: fact_pb2.PositionCause.ValueType,
    ) -> None:
        for back, index, ms in where:
            # One position a message, so that what follows from each is seen by itself.
            item_id = self._names(back)[1]
            key = item_id, index
            if key in self.known and key not in self.settled | self.position_ms.keys():
                if ms and key not in self.answered:
                    self.heard.add(item_id)
                if cause == CLEARED:
                    self.position_ms[key] = ms
            self.talk.positions((item_id, ms), content_index=index, cause=cause)
            self._look()
        if names_interrupt:
            # What was asked about and not named never reached Twilio: that is its position for good.
            self.answered |= self.known
            self.talk.positions(interrupt_id=len(self.talk.interrupts), cause=cause)
            self._look()

    @precondition(lambda self: self.steps > 25)
    @rule()
    def the_caller_leaves(self) -> None:
        self.talk.hang_up()
        self._look()

    @rule(seconds=st.sampled_from([0.1, 0.4]))
    def time_passes(self, seconds: float) -> None:
        self.talk.later(seconds)
        self._look()

    def _look(self) -> None:
        """Judge what was put out since."""
        self.steps += 1
        for output in self.talk.outputs[self.seen :]:
            match output:
                case AudioReceived(item_id, index, payload):
                    self.known.add((item_id, index))
                    before = self.received_bytes.get((item_id, index), 0)
                    length_bytes = len(base64.b64decode(payload))
                    self.received_bytes[item_id, index] = before + length_bytes
                case PartCut(item_id, index) | PartPlayed(item_id, index):
                    assert (item_id, index) not in self.settled, "settled twice"
                    self.settled.add((item_id, index))
                case ToModel(TruncateItem() as told):
                    key = told.item_id, told.content_index
                    assert key not in self.truncated, "cut twice"
                    assert told.item_id not in self.deleted, "there is nothing to cut any more"
                    assert told.audio_end_ms < self.received_bytes[key] / 8, "beyond what came"
                    assert told.audio_end_ms <= self.position_ms.get(key, 0), "beyond the position"
                    self.truncated.add(key)
                case ToModel(DeleteItem() as told):
                    assert told.item_id not in self.heard, "it was heard"
                    assert told.item_id in self.over, "the server may still be adding to it"
                    assert told.item_id not in self.deleted, "deleted twice"
                    self.deleted.add(told.item_id)
        self.seen = len(self.talk.outputs)


AnyInterleaving.TestCase.settings = settings(
    max_examples=examples(150), stateful_step_count=30, deadline=None
)
TestAnyInterleaving = AnyInterleaving.TestCase
