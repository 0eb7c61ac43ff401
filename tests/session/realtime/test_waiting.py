"""When the caller is told that a function is still at work: not sooner, once, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session.agent import Agent, Tool, WhileWaiting
from session.realtime.waiting import INSTRUCT, SAY, Waiting


def tool(name: str, word: WhileWaiting | None = None) -> Tool:
    return Tool(name, "d", "http://127.0.0.1/f", while_waiting=word)


AGENT = Agent(
    "x",
    "Be brief.",
    while_waiting=WhileWaiting(after_s=4, say="One moment."),
    tools=[
        tool("quote"),
        tool("ship", WhileWaiting(after_s=9, instruct="Say that shipping takes long.")),
        tool("pay", WhileWaiting(after_s=2)),
    ],
)

Step = tuple[str, float, str]
"""``call`` (function@round), ``over`` (function), ``sound`` and ``quiet`` (nothing); with its time."""


class Line:
    """Plays steps in time, and keeps what was said when. Quiet since 0."""

    def __init__(self, agent: Agent = AGENT) -> None:
        self.waiting = Waiting(agent)
        self.quiet_since: float | None = 0.0
        self.said: list[tuple[float, str]] = []

    def play(self, *steps: Step, until: float = 60) -> list[tuple[float, str]]:
        for kind, at, what in steps:
            self._pass(at)
            function, _, round_id = what.partition("@")
            if kind == "call":
                self.waiting.called(function, function, round_id=round_id or "R", now=at)
            elif kind == "over":
                self.waiting.over(function)
            else:
                self.quiet_since = at if kind == "quiet" else None
            self._ask(at)
        self._pass(until)
        return self.said

    def _pass(self, until: float) -> None:
        while (due := self.waiting.next_timer(held=False)) is not None and due <= until:
            before = len(self.said)
            self._ask(due)
            assert len(self.said) == before + 1, "the timer was not for nothing"

    def _ask(self, now: float) -> None:
        word = self.waiting.next(quiet_since=self.quiet_since, held=False, now=now)
        if word is not None:
            session, _, rest = word.instructions.partition("\n\n")
            assert session == AGENT.instructions, "a response's instructions replace the session's"
            self.said.append((now, rest))


MOMENT = f'{SAY}"One moment."'


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([("call", 1, "quote")], [(4, MOMENT)]),
        ([("call", 1, "quote"), ("over", 3.9, "quote")], []),
        # The model was long in calling: a moment for the function, and no silence beyond patience.
        ([("call", 3.4, "quote")], [(4, MOMENT)]),
        ([("call", 4.5, "quote")], [(5, MOMENT)]),
        ([("call", 4.5, "quote"), ("over", 4.9, "quote")], []),
        ([("call", 5.75, "quote")], [(6, MOMENT)]),
        ([("call", 8, "quote")], [(8, MOMENT)]),
        ([("call", 8, "ship")], [(9, "Say that shipping takes long.")]),
        # Several at once: one word, of the one whose time comes first.
        ([("call", 1, "quote"), ("call", 1, "ship"), ("call", 1.5, "pay")], [(2, INSTRUCT)]),
        (
            [("call", 1, "quote"), ("call", 1, "ship"), ("over", 3, "quote")],
            [(9, "Say that shipping takes long.")],
        ),
        ([("call", 1, "quote"), ("call", 1, "ship"), ("over", 6, "quote")], [(4, MOMENT)]),
        # Somebody is heard: the silence begins anew.
        ([("call", 1, "quote"), ("sound", 2, ""), ("quiet", 8, "")], [(12, MOMENT)]),
        ([("sound", 0, ""), ("call", 1, "quote"), ("quiet", 3, "")], [(7, MOMENT)]),
        ([("sound", 0, ""), ("call", 1, "quote")], []),
        ([("call", 1, "quote"), ("sound", 2, ""), ("over", 7, "quote"), ("quiet", 8, "")], []),
        # One after the other in silence: the caller does not know where one ends.
        (
            [("call", 1, "quote@R1"), ("over", 3, "quote"), ("call", 3.5, "quote@R2")],
            [(4, MOMENT)],
        ),
        (
            [
                ("call", 1, "quote@R1"),
                ("over", 3, "quote"),
                ("sound", 3, ""),
                ("quiet", 3.2, ""),
                ("call", 3.5, "quote@R2"),
            ],
            [(7.2, MOMENT)],
        ),
        # A round has one word; the next round has its own.
        ([("call", 1, "quote"), ("sound", 6, ""), ("quiet", 8, "")], [(4, MOMENT)]),
        (
            [
                ("call", 1, "quote@R1"),
                ("sound", 6, ""),
                ("quiet", 8, ""),
                ("call", 10, "pay@R2"),
            ],
            [(4, MOMENT), (10.5, INSTRUCT)],
        ),
        # Two rounds at work when a word is said: it was for both.
        (
            [("call", 1, "ship@R1"), ("sound", 2, ""), ("quiet", 3, ""), ("call", 4, "pay@R2")],
            [(5, INSTRUCT)],
        ),
        # An answer that nobody waits for.
        ([("over", 1, "quote")], []),
        ([("call", 1, "unknown function")], [(4, MOMENT)]),
    ],
)
def test_the_word(steps: list[Step], said: list[tuple[float, str]]) -> None:
    assert Line().play(*steps) == said


def test_what_may_be_heard_next_is_waited_for() -> None:
    waiting = Waiting(AGENT)
    waiting.called("c", "quote", round_id="R", now=1)
    assert waiting.next(quiet_since=0, held=True, now=9) is None
    assert waiting.next_timer(held=True) is None
    assert waiting.next_timer(held=False) == 4, "long past: at once"
    assert waiting.next(quiet_since=0, held=False, now=9) is not None
    assert waiting.next(quiet_since=0, held=False, now=20) is None


def test_a_sound_that_began_and_ended_between_two_questions_was_heard_too() -> None:
    waiting = Waiting(AGENT)
    waiting.called("c", "quote", round_id="R", now=1)
    assert waiting.next(quiet_since=0, held=False, now=2) is None
    assert waiting.next(quiet_since=3, held=False, now=6) is None
    assert waiting.next_timer(held=False) == 7


def test_a_round_that_goes_on_after_its_word_has_no_other() -> None:
    steps: list[Step] = [("call", 1, "quote"), ("over", 6, "quote"), ("call", 7, "pay")]
    assert Line().play(*steps) == [(4, MOMENT)]


def test_whether_a_function_is_at_work() -> None:
    line = Line()
    seen = []
    for kind, at, function in (("call", 1, "quote"), ("call", 1, "pay")):
        seen.append(line.waiting.working)
        line.play((kind, at, function), until=at)
    for function in ("pay", "quote"):
        seen.append(line.waiting.working)
        line.play(("over", 20, function), until=20)
    assert [*seen, line.waiting.working] == [False, True, True, True, False]


AFTER_S = {"quote": 4, "ship": 9, "pay": 2}


class Watched(Line):
    """Knows what is at work, and looks at each word and at each silence without one."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work: dict[str, tuple[str, float]] = {}
        """Function to its round and when it was called."""
        self.told: set[str] = set()

    def step(self, kind: str, at: float, function: str, *, same_round: bool) -> None:
        self.silent_until(at)
        if kind == "call" and function not in self.at_work:
            rounds = [round_id for round_id, _at in self.at_work.values()] if same_round else []
            self.at_work[function] = (rounds or [f"R{at}"])[0], at
            self.step_played("call", at, f"{function}@{self.at_work[function][0]}")
        elif kind == "over" and function in self.at_work:
            del self.at_work[function]
            self.step_played("over", at, function)
        elif (kind == "sound") != (self.quiet_since is None) and kind in ("sound", "quiet"):
            self.step_played(kind, at, "")

    def step_played(self, kind: str, at: float, what: str) -> None:
        before = len(self.said)
        self.play((kind, at, what), until=at)
        self.look(before)

    def silent_until(self, at: float) -> None:
        before = len(self.said)
        self.play(until=at)
        self.look(before)
        for function, (round_id, called_at) in self.at_work.items():
            if self.quiet_since is not None and round_id not in self.told:
                waited_s = at - max(self.quiet_since, called_at)
                assert waited_s < AFTER_S[function], "a word was owed"

    def look(self, before: int) -> None:
        for at, _text in self.said[before:]:
            new = {round_id for round_id, _at in self.at_work.values()} - self.told
            assert new, "a round has one word"
            self.told |= new
            assert self.quiet_since is not None, "nobody is heard"
            shortest_s = min(AFTER_S[f] for f, (r, _at) in self.at_work.items() if r in new)
            assert at - self.quiet_since >= shortest_s, "not sooner"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["call", "call", "over", "sound", "quiet"]),
            st.sampled_from([0.25, 0.5, 1.0, 3.0, 6.0]),
            st.sampled_from(sorted(AFTER_S)),
            st.booleans(),
        ),
        max_size=25,
    )
)
def test_in_any_order_a_word_is_said_in_silence_and_once_a_round(
    steps: list[tuple[str, float, str, bool]],
) -> None:
    line, at = Watched(), 0.0
    for kind, delay_s, function, same_round in steps:
        at += delay_s
        line.step(kind, at, function, same_round=same_round)
    line.silent_until(at + 600)
