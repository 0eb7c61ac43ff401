"""A sound that was no turn: the code does what the tables of ``noise`` say, in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session.realtime import noise
from session.realtime.debts import Kind
from session.realtime.noise import COMMIT_S, MAX_IN_A_ROW, QUIET_S, State
from tests.session.realtime.noisy import AUDIO_MS, GREETER, NOW, SPOKEN, TEXT, Call, said

# --- the table ----------------------------------------------------------------------------------


def in_state(state: State) -> Call:
    call = Call()
    call.says("R")
    if state is not State.WHOLE:
        call.sound()
        call.heard("R", 3_000)
    if state is State.OWED:
        assert call.quiet() is not None
    if state is State.SPEAKING:
        call.says("R2")
    assert call.noise.state is state
    return call


TABLE = {
    "cut": (State.CUT, State.CUT, State.OWED, State.CUT),
    "turn": (State.WHOLE, State.WHOLE, State.WHOLE, State.WHOLE),
    "no turn": (State.WHOLE, State.CUT, State.OWED, State.SPEAKING),
    "response": (State.WHOLE, State.SPEAKING, State.SPEAKING, State.SPEAKING),
    "nothing": (State.WHOLE, State.CUT, State.OWED, State.CUT),
    "both sides are quiet": (State.WHOLE, State.OWED, State.OWED, State.SPEAKING),
}


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("state", State)
def test_states_follow_the_table(event: str, state: State) -> None:
    call = in_state(state)
    match event:
        case "cut":
            call.sound()
        case "turn":
            call.turn()
        case "no turn":
            assert call.turn(text="")
        case "response":
            call.begins("R9")
        case "nothing":
            call.noise.said_nothing("R2")
        case "both sides are quiet":
            call.quiet()
    assert call.noise.state is TABLE[event][list(State).index(state)]


def test_the_table_in_the_code_is_the_one_that_is_tested() -> None:
    names = {"cut": noise.Event.CUT, "turn": noise.Event.TURN, "response": noise.Event.RESPONSE,
             "nothing": noise.Event.NOTHING,
             "both sides are quiet": noise.Event.RESUME}  # fmt: skip
    for name, event in names.items():
        for state, then in zip(State, TABLE[name], strict=True):
            assert noise.TABLE.get((state, event), state) is then


# --- the ordinary case --------------------------------------------------------------------------


def test_noise_in_mid_sentence_costs_a_pause_and_not_the_rest_of_the_sentence() -> None:
    call = Call()
    call.says("R")
    call.sound()
    call.heard("R", 3_000)
    assert call.quiet(1.4) is None
    resume = call.quiet()
    assert said(resume) == (Kind.CONTINUATION, TEXT[TEXT.index("twelve") :])
    assert resume is not None and resume.instructions is not None
    assert resume.instructions.startswith("Be brief.\n\n")
    assert call.quiet(60) is None  # once


def test_noise_while_the_model_is_still_generating() -> None:
    call = Call()
    call.begins("R", ms=2_000)
    call.sound()
    call.heard("R", 1_900)
    resume = call.quiet()
    assert said(resume)[1].endswith("half past nine.")
    assert "still had to say" in (resume.instructions or "" if resume else "")


def test_a_turn_may_be_committed_a_moment_after_the_sound() -> None:
    call = in_state(State.CUT)
    call.now += 8  # semantic voice detection takes its time to say that the caller stopped
    call.noise.speech_stopped(now=call.now)
    quiet_from = call.now - 8
    assert call.noise.next_timer(quiet_from=quiet_from, owed=(), busy=False) == call.now + COMMIT_S


def test_what_the_model_cancels_in_silence_is_waited_for_as_well() -> None:
    call = Call()
    call.noise.cut("R", now=NOW)
    assert call.noise.next_timer(quiet_from=0.0, owed=(), busy=False) == NOW + QUIET_S


@pytest.mark.parametrize("quiet_from", [None, NOW + 50])
def test_nothing_is_said_while_somebody_speaks(quiet_from: float | None) -> None:
    call = in_state(State.CUT)
    resume = call.noise.next(
        quiet_from=quiet_from, owed=(), busy=False, calling=False, now=NOW + 51
    )
    assert resume is None


def test_nothing_is_said_while_something_else_is_owed() -> None:
    call = in_state(State.CUT)
    assert call.quiet(60, busy=True) is None
    assert call.quiet(60, owed=(Kind.ANSWER,)) is None
    assert call.quiet(60, owed=(Kind.RESULTS, Kind.WAITING)) is None
    assert call.quiet() is not None


def test_results_are_not_held_back_and_what_was_not_heard_comes_along() -> None:
    call = in_state(State.CUT)
    resume = call.quiet(COMMIT_S, owed=(Kind.RESULTS,))
    assert said(resume)[1].startswith("twelve dollars")
    assert "speak of its result after that" in (resume.instructions or "" if resume else "")


def test_nothing_is_said_when_the_caller_has_left() -> None:
    call = in_state(State.CUT)
    call.memory.caller_left = True
    assert call.noise.next_timer(quiet_from=0.0, owed=(), busy=False) is None


def test_an_agent_that_is_to_wait_does() -> None:
    call = Call(SPOKEN + "when_cut_by_noise: wait\n")
    call.says("R")
    call.sound()
    call.heard("R", 3_000)
    assert call.quiet(60) is None
    assert call.turn(text="")  # and what was no turn is none for it as well


def test_noise_after_all_was_heard_is_nothing_to_go_on_from() -> None:
    call = Call()
    call.says("R")
    call.sound()
    call.heard("R", AUDIO_MS)
    assert call.quiet(60) is None
    assert call.noise.state is State.WHOLE


def test_noise_when_the_agent_had_long_finished_cuts_nothing() -> None:
    call = Call()
    call.says("R")
    call.heard("R", AUDIO_MS)
    call.sound()
    assert call.noise.state is State.WHOLE
    assert call.turn(text="")


# --- turns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_turn_that_nobody_spoke_in_is_none(text: str) -> None:
    call = in_state(State.CUT)
    assert call.turn(text=text)
    assert call.quiet() is not None


@pytest.mark.parametrize("text", ["Wait.", None])
def test_after_a_turn_it_is_for_the_model_to_answer(text: str | None) -> None:
    call = in_state(State.CUT)
    assert not call.turn(text=text)
    assert call.quiet(60) is None


def test_a_transcription_may_come_before_its_commit() -> None:
    call = in_state(State.CUT)
    assert not call.noise.transcribed("U", "")
    assert call.noise.committed("U")
    assert not call.noise.transcribed("V", "Stop.")
    assert not call.noise.committed("V")
    assert call.noise.state is State.WHOLE


def test_without_transcription_every_turn_is_one() -> None:
    call = Call(SPOKEN + "transcription: null\n")
    call.says("R")
    call.sound()
    assert not call.noise.committed("U")
    assert call.noise.state is State.WHOLE


def test_the_caller_speaks_a_second_after_the_noise() -> None:
    call = in_state(State.CUT)
    assert call.quiet(1.0) is None
    call.sound(2.0)
    assert not call.noise.committed("U")
    assert call.quiet(3.0, busy=True) is None  # its answer is owed
    call.begins("R2")
    assert not call.noise.transcribed("U", "How much?")
    assert call.noise.state is State.WHOLE


def test_noise_that_cuts_the_answer_to_a_turn_which_is_transcribed_only_then() -> None:
    call = in_state(State.CUT)
    call.noise.committed("U")
    call.says("R2", "Twelve dollars.", 1_500)
    call.sound()
    call.heard("R2", 0)
    call.noise.transcribed("U", "How much?")
    assert said(call.quiet()) == (Kind.CONTINUATION, "Twelve dollars.")


def test_the_model_may_answer_what_was_no_turn() -> None:
    call = in_state(State.CUT)
    call.noise.committed("U")
    call.says("R2", "Sorry?", 700)
    assert call.noise.transcribed("U", "")
    call.heard("R2", 700)
    assert call.quiet(60) is None


def test_only_what_began_instead_of_what_was_cut_off_can_have_said_nothing_of_it() -> None:
    call = in_state(State.OWED)
    call.begins(
        "R2"
    )  # the continuation; when it says nothing, it is owed again as it was asked for
    call.noise.said_nothing("R2")
    assert call.noise.state is State.SPEAKING


# --- one after the other ------------------------------------------------------------------------


def test_two_noises_in_a_row_are_one() -> None:
    call = in_state(State.CUT)
    assert call.quiet(1.0) is None
    call.sound()
    assert said(call.quiet())[1].startswith("twelve dollars")


def test_noise_while_a_whole_continuation_plays() -> None:
    call = in_state(State.OWED)
    call.says("R2", "comes to twelve dollars and fifty cents, ready at half past nine.", 4_000)
    call.sound()
    call.heard("R2", 3_000)
    assert said(call.quiet())[1] == "ready at half past nine."


def test_noise_while_a_continuation_plays_and_the_gateway_owes_its_word_on_the_first_cut() -> None:
    call = Call()
    call.says("R")
    call.memory.playing_until = NOW + 2.6
    call.sound()
    call.memory.playing_until = 0.0
    assert said(call.quiet())[1] == TEXT[TEXT.index("twelve") :]
    call.says("R2", "Twelve dollars, ready at half past nine.", 3_000)
    call.sound()
    call.heard("R2", 2_000)
    assert said(call.quiet())[1] == "ready at half past nine."


def test_noise_before_a_word_of_the_continuation_was_heard() -> None:
    call = in_state(State.OWED)
    call.says("R2", "comes to twelve dollars and so on.", 4_000)
    call.sound()
    call.heard("R2", 0)
    assert said(call.quiet())[1] == TEXT[TEXT.index("twelve") :]


def test_noise_before_there_was_a_continuation() -> None:
    call = in_state(State.OWED)
    call.begins("R2", text="")
    call.sound()
    assert said(call.quiet())[1] == TEXT[TEXT.index("twelve") :]


def test_noise_while_a_continuation_is_generated_loses_nothing_of_the_first_sentence() -> None:
    call = in_state(State.OWED)
    call.begins("R2", "twelve dollars and fifty", 3_000)
    call.sound()
    call.heard("R2", 3_000)
    _, rest = said(call.quiet())
    assert rest.endswith("ready at half past nine.")
    assert TEXT.index(rest) <= TEXT.index("fifty")


def test_noise_in_what_followed_a_continuation_is_about_that() -> None:
    call = in_state(State.OWED)
    call.says("R2", "twelve dollars.", 1_500)
    call.heard("R2", 1_500)
    call.says("R3", "Anything else?", 1_500)
    call.sound()
    call.heard("R3", 0)
    assert said(call.quiet())[1] == "Anything else?"


def test_who_is_cut_off_again_and_again_waits() -> None:
    call = in_state(State.CUT)
    for n in range(MAX_IN_A_ROW):
        assert call.quiet() is not None
        call.says(f"N{n}")
        call.sound()
        call.heard(f"N{n}", 300)
    assert call.quiet(60) is None
    assert call.noise.state is State.WHOLE


def test_who_was_heard_to_the_end_or_answered_a_turn_is_cut_off_for_the_first_time() -> None:
    call = in_state(State.CUT)
    for n in range(2 * MAX_IN_A_ROW):
        assert call.quiet() is not None
        call.says(f"N{n}")
        if n % 2:
            call.heard(f"N{n}", AUDIO_MS)
        else:
            call.turn(f"U{n}")
        call.says(f"M{n}")
        call.sound()
        call.heard(f"M{n}", 2_000)


# --- the greeting -------------------------------------------------------------------------------


@pytest.mark.parametrize("heard_ms", [0, 300])
def test_a_greeting_that_its_echo_cut_off_is_said_anew(heard_ms: int) -> None:
    call = Call(GREETER)
    call.says("R")
    call.sound()
    call.heard("R", heard_ms)
    resume = call.quiet()
    assert resume == noise.Resume(Kind.GREETING, "Be brief.\n\nSay hello.")


def test_a_greeting_that_was_cut_off_before_its_first_sign() -> None:
    call = Call(GREETER)
    call.noise.cut("R", now=NOW)
    assert said(call.quiet())[0] is Kind.GREETING


def test_of_a_greeting_that_was_heard_in_part_the_rest_is_said() -> None:
    call = Call(GREETER)
    call.says("R")
    call.sound()
    call.heard("R", 3_000)
    assert said(call.quiet())[0] is Kind.CONTINUATION


@pytest.mark.parametrize("by", ["the agent", "the caller"])
def test_nobody_is_greeted_once_something_was_said(by: str) -> None:
    call = Call(GREETER)
    if by == "the agent":
        call.says("R")
        call.heard("R", AUDIO_MS)
    else:
        call.turn()
    call.says("R2", "Twelve dollars.", 1_500)
    call.sound()
    call.heard("R2", 0)
    assert said(call.quiet()) == (Kind.CONTINUATION, "Twelve dollars.")


# --- functions ----------------------------------------------------------------------------------


def test_noise_during_a_functions_wait_costs_no_word_either() -> None:
    call = Call()
    call.says("R", "Let me look that up for you, one moment please.", 3_000)
    call.calls("R", announced=True)
    call.sound()
    call.heard("R", 1_500)
    resume = call.quiet(calling=True)
    assert said(resume)[1].endswith("one moment please.")
    assert "function call" not in (resume.instructions or "" if resume else "")


def test_a_function_call_that_noise_broke_off_is_not_forgotten() -> None:
    call = Call()
    call.begins("R", "Let me look.", 1_000)
    call.calls("R", announced=False)
    call.sound()
    call.heard("R", 1_000)
    resume = call.quiet()
    assert said(resume)[0] is Kind.CONTINUATION
    assert resume is not None
    assert "make it again" in (resume.instructions or "")


@pytest.mark.parametrize(("calling", "what"), [(False, Kind.ANSWER), (True, None)])
def test_what_was_cut_off_before_there_was_anything_of_it(calling: bool, what: Kind | None) -> None:
    call = Call()
    call.begins("R", text="")
    call.sound()
    resume = call.quiet(calling=calling)
    assert said(resume) == (what, "")
    assert resume is None or resume.instructions is None


# --- positions ----------------------------------------------------------------------------------


def test_where_the_gateway_says_nothing_the_clock_does() -> None:
    call = Call()
    call.says("R", ms=6_000)
    call.says("R2", "Anything else?", 1_000)
    call.memory.playing_until = NOW + 3.6
    call.noise.cut(now=NOW)
    heard_ms = 6_000 - 2_600 - noise.GUESS_MS
    assert heard_ms == 3_000
    assert said(call.quiet())[1] == TEXT[TEXT.index("twelve") :] + " Anything else?"


# --- any order ----------------------------------------------------------------------------------

HAPPENINGS = st.sampled_from(
    ["says", "begins", "over", "sound", "positions", "turn", "no turn", "quiet", "quiet", "id"]
)


@given(st.lists(HAPPENINGS, max_size=40), st.sampled_from([SPOKEN, GREETER]), st.data())
def test_in_any_order_the_agent_goes_on_or_has_a_reason_not_to(
    happenings: list[str], text: str, data: st.DataObject
) -> None:
    call = Call(text)
    for n, what in enumerate(happenings):
        before = call.noise.state
        match what:
            case "says":
                call.says(f"R{n}")
            case "begins":
                call.begins(f"R{n}", data.draw(st.sampled_from(["", TEXT])), 900)
            case "over":
                for response_id in list(call.memory.responses):
                    call.over(response_id)
            case "sound":
                call.sound()
            case "id":
                call.noise.cut(f"R{n}", now=call.now)
            case "positions":
                for item_id, item in call.memory.items.items():
                    if item.speech and not item.settled and item.parts[0].position_ms is None:
                        ms = data.draw(st.sampled_from([0, 300, 2_000, 9_000]))
                        call.heard(item_id[1:], ms)
            case "turn" | "no turn":
                assert call.turn(f"U{n}", "Yes." if what == "turn" else "") == (what == "no turn")
                assert what == "no turn" or call.noise.state is State.WHOLE
            case "quiet":
                resume = call.quiet()
                assert (resume is not None) <= (before is State.CUT)
                assert call.noise.state is (
                    before if before is not State.CUT
                    else State.OWED if resume is not None else State.WHOLE
                )  # fmt: skip
                if resume is not None and resume.kind is not Kind.ANSWER:
                    assert resume.instructions
                assert call.quiet(60) is None
