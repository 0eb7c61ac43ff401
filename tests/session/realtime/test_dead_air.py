"""Silences in which the caller waits: what begins and ends them, what they are put down to."""

from __future__ import annotations

import pytest

from asheard.v1 import transcript_pb2
from session.notices import Notice
from session.realtime.dead_air import PATIENCE_S, WORD_S, DeadAir, Reason, Stretch
from session.realtime.line import Line
from session.realtime.state import Memory

MODEL = transcript_pb2.DEAD_AIR_REASON_MODEL
TOOL = transcript_pb2.DEAD_AIR_REASON_TOOL
REFUSED = transcript_pb2.DEAD_AIR_REASON_REFUSED
NO_RESPONSE = transcript_pb2.DEAD_AIR_REASON_NO_RESPONSE


class Silence:
    """Somebody waits from second 100, when the line falls silent."""

    def __init__(self, owing: Reason | None = MODEL) -> None:
        self.dead_air = DeadAir()
        self.owing = owing
        self.quiet_from: float | None = 100.0
        self.look(100.0)

    def look(self, now: float, **change: object) -> Stretch | None:
        for name, value in change.items():
            setattr(self, name, value)
        return self.dead_air.look(self.owing, since=None, quiet_from=self.quiet_from, now=now)


def since(dead_air: DeadAir) -> float | None:
    return dead_air.since


@pytest.mark.parametrize(
    "end", [{"owing": None}, {"quiet_from": None}, {"quiet_from": 104.0}], ids=str
)
def test_a_stretch_ends_when_one_side_speaks_or_nothing_is_owed(end: dict[str, object]) -> None:
    silence = Silence()
    assert silence.look(101.5) is None
    assert silence.look(103.0, **end) == Stretch(MODEL, 100.0, 103.0)
    assert silence.look(103.5, **end) is None, "accounted for once"


def test_a_stretch_begins_with_the_last_word_or_with_the_debt() -> None:
    dead_air = DeadAir()
    dead_air.look(MODEL, since=99.5, quiet_from=99.0, now=100.0)
    assert since(dead_air) == 99.5
    dead_air.look(MODEL, since=99.5, quiet_from=102.0, now=101.0)
    assert since(dead_air) is None, "the agent speaks"
    assert dead_air.next_timer() == 102.0
    dead_air.look(MODEL, since=99.5, quiet_from=102.0, now=102.5)
    assert since(dead_air) == 102.0


def test_it_is_put_down_to_what_most_of_it_was_spent_on() -> None:
    silence = Silence(TOOL)
    silence.look(101.0, owing=REFUSED)
    silence.look(104.0, owing=MODEL)
    assert silence.look(105.0, owing=None) == Stretch(REFUSED, 100.0, 105.0)


def test_what_was_waited_for_in_vain_was_no_response_all_the_time() -> None:
    silence = Silence(MODEL)
    silence.look(103.0, owing=NO_RESPONSE)
    silence.look(103.0, owing=MODEL)
    assert silence.look(104.0, owing=None) == Stretch(NO_RESPONSE, 100.0, 104.0)


def test_who_waits_in_silence_is_told_once_to_wait_and_then_that_there_is_nothing() -> None:
    silence = Silence()
    said, now = [], 100.0
    while (due := silence.dead_air.next_timer()) is not None:
        assert silence.dead_air.word(now=due - 0.01) is None
        now += PATIENCE_S
        assert due == now
        silence.look(now)
        word = silence.dead_air.word(now=now)
        assert word is not None
        said.append(word)
    assert said == [Notice.HOLD, Notice.SORRY]
    silence.look(now, owing=None)
    silence.look(now, owing=MODEL)
    assert silence.dead_air.next_timer() == now + PATIENCE_S, "a new wait, a new word"


def test_while_a_function_works_the_caller_is_told_only_in_place_of_the_model() -> None:
    silence = Silence(TOOL)
    assert silence.dead_air.next_timer() is None, "it is for the agent file to say when"
    silence.look(120.0)
    silence.dead_air.word_owed(after_s=20.0, now=120.0)
    assert silence.dead_air.next_timer() == 120 + WORD_S
    silence.look(120 + WORD_S)
    assert silence.dead_air.word(now=120 + WORD_S) is Notice.HOLD
    assert silence.dead_air.next_timer() is None, "told once"


@pytest.mark.parametrize(
    ("after_s", "owed_at", "until"),
    [(4, 104, 106), (4, 105, 106), (4, 107, 107), (2, 102, 104), (2, 105, 106), (5, 105, 107),
     (20, 120, 122), (5, 106.5, 107)],
)  # fmt: skip
def test_a_word_about_a_function_that_was_called_late_makes_no_silence_longer_than_others(
    after_s: float, owed_at: float, until: float
) -> None:
    silence = Silence(TOOL)
    silence.look(owed_at)
    silence.dead_air.word_owed(after_s=after_s, now=owed_at)
    assert silence.dead_air.next_timer() == until


def test_a_word_of_the_models_needs_no_other() -> None:
    silence = Silence(TOOL)
    silence.dead_air.word_owed(after_s=4.0, now=104.0)
    silence.look(105.0, quiet_from=106.5)
    silence.look(106.5)
    assert silence.dead_air.next_timer() is None


def test_who_speaks_waits_anew() -> None:
    silence = Silence()
    silence.look(106.0)
    assert silence.dead_air.word(now=106.0) is Notice.HOLD
    silence.look(107.0, quiet_from=None)
    silence.look(108.0, quiet_from=108.0, owing=TOOL)
    silence.look(111.0, owing=MODEL)
    assert silence.dead_air.next_timer() == 114.0, "a function that was quick is no word"
    silence.look(114.0)
    assert silence.dead_air.word(now=114.0) is Notice.HOLD


@pytest.mark.parametrize(("answered_at", "due"), [(103.0, 106.0), (150.0, 156.0)])
def test_patience_with_the_model_begins_when_a_slow_function_has_answered(
    answered_at: float, due: float
) -> None:
    silence = Silence(TOOL)
    silence.look(answered_at, owing=MODEL)
    assert silence.dead_air.next_timer() == due
    silence.look(due)
    assert silence.dead_air.word(now=due) is Notice.HOLD


def test_a_word_to_the_caller_is_heard_before_its_patience_begins_anew() -> None:
    silence = Silence()
    silence.look(100 + PATIENCE_S)
    assert silence.dead_air.word(now=100 + PATIENCE_S) is Notice.HOLD
    until = 100 + PATIENCE_S + 1.5
    over = silence.look(100 + PATIENCE_S, quiet_from=until)
    assert over == Stretch(MODEL, 100.0, 100 + PATIENCE_S)
    silence.look(until)
    assert silence.dead_air.next_timer() == until + PATIENCE_S


# --- who is audible ---------------------------------------------------------------------------


def test_the_agent_is_audible_as_long_as_its_audio_lasts() -> None:
    memory = Memory()
    line = Line(memory)
    line.agent_given(2.0, now=100.0)
    line.agent_given(1.0, now=101.0)
    assert line.quiet_from == 103.0
    line.agent_given(1.0, now=110.0)
    assert line.quiet_from == 111.0
    line.agent_silenced(now=110.5)
    assert line.quiet_from == 110.5
    line.agent_silenced(now=120.0)
    assert line.quiet_from == 110.5, "it was silent already"


def test_the_caller_is_audible_until_its_last_word() -> None:
    line = Line(Memory())
    line.caller_speaks()
    assert line.quiet_from is None
    line.caller_stopped(99.5)
    line.caller_stopped(105.0)
    assert line.quiet_from == 99.5, "it had stopped already"
