"""What a script can make go wrong with turns, results and replies; how the model goes on."""

from __future__ import annotations

from typing import Any

import pytest

from simulators.realtime.faults import (
    RequestFault,
    ResultFault,
    TurnFault,
)
from simulators.realtime.script import AgentScript, CallTool, Failure, Hearing, Reply, Speak, say
from simulators.speech import spoken
from simulators.speech.g711 import SILENCE
from tests.simulators.realtime.drive import (
    CREATE,
    LINE,
    ORDER,
    Drive,
    ask,
    every,
    kinds,
    only,
    only_error,
    pcmu_session,
    played,
    said,
)

NOISE = spoken("Mm.").ulaw
"""A sound that voice detection takes for a voice, and in which no word is recognised."""


def heard(drive: Drive, audio: bytes) -> list[dict[str, Any]]:
    """The caller makes a sound and is silent; what came of it."""
    return drive.hear(audio + SILENCE * 5_600)


# --- turns --------------------------------------------------------------------------------------


def test_noise_cuts_the_agent_and_nothing_follows() -> None:
    drive = Drive(AgentScript(replies=(say(LINE),), turns=(TurnFault(no_commit=True),)))
    ask(drive, "first")
    drive.wait(700)
    events = heard(drive, NOISE) + drive.wait(20_000)
    outline = [
        name
        for name in kinds(events)
        if name.startswith("input_audio") or name in ("response.done", "response.created")
    ]
    assert outline == [
        "input_audio_buffer.speech_started",
        "response.done",
        "input_audio_buffer.speech_stopped",
    ]
    assert only(events, "response.done")["response"]["status"] == "cancelled"
    assert drive.truth.caller_items == []
    assert played(drive) == ["no_commit"]
    # The next sound is a turn again, and the noise is not in it.
    committed = only(heard(drive, ORDER.ulaw), "input_audio_buffer.committed")
    assert drive.truth.caller_items[0].item_id == committed["item_id"]
    assert drive.truth.caller_items[0].transcript == ORDER.text


def test_turn_is_committed_and_not_answered() -> None:
    drive = Drive(AgentScript(replies=(say(LINE),), turns=(None, TurnFault(no_response=True))))
    assert "response.created" in kinds(heard(drive, ORDER.ulaw))
    drive.wait(5_000)
    events = heard(drive, ORDER.ulaw) + drive.wait(20_000)
    assert "input_audio_buffer.committed" in kinds(events)
    assert "response.created" not in kinds(events)
    turn = drive.truth.caller_items[1].item_id
    assert [(f.what, f.about) for f in drive.truth.faults] == [("no_response", turn)]


def test_turn_without_an_answer_is_answered_when_the_client_asks() -> None:
    script = AgentScript(
        replies=(say("First."), say("That will be $9.05.", when="bagels")),
        turns=(TurnFault(no_response=True),),
    )
    drive = Drive(script)
    heard(drive, ORDER.ulaw)
    ask(drive, "mine")
    drive.wait(5_000)
    assert said(drive) == ["That will be $9.05."]


def test_answer_to_a_turn_may_be_late_so_that_a_request_comes_before_it() -> None:
    script = AgentScript(replies=(say(LINE),), turns=(TurnFault(response_after_ms=4_000),))
    drive = Drive(script)
    assert "response.created" not in kinds(heard(drive, ORDER.ulaw) + drive.wait(3_000))
    assert kinds(ask(drive, "mine")) == ["response.created"]
    late = only_error(drive.wait(1_000))
    assert late["code"] == "conversation_already_has_active_response"
    assert late["event_id"] is None
    assert [g.asked for g in drive.truth.generations] == ["client"]


def test_sounds_without_a_word_can_be_told_from_turns_wherever_they_come() -> None:
    script = AgentScript(wordless=TurnFault(no_response=True), vocabulary=("Half a dozen rolls.",))
    drive = Drive(script)
    assert "response.created" not in kinds(heard(drive, NOISE))
    assert "response.created" in kinds(heard(drive, ORDER.ulaw))
    drive.wait(5_000)
    assert "response.created" in kinds(heard(drive, spoken("Half a dozen rolls.").ulaw))
    drive.wait(5_000)
    events = heard(drive, NOISE) + drive.wait(1_000)
    assert "response.created" not in kinds(events)
    completed = only(events, "conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == ""


def test_transcription_may_be_empty_though_there_were_words() -> None:
    drive = Drive(AgentScript(hearings=(Hearing(text=""),)))
    events = heard(drive, ORDER.ulaw) + drive.wait(1_000)
    completed = only(events, "conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == ""


# --- silence ------------------------------------------------------------------------------------


def idle_session(timeout_ms: int = 6_000) -> dict[str, Any]:
    update = pcmu_session()
    update["session"]["audio"]["input"]["turn_detection"]["idle_timeout_ms"] = timeout_ms
    return update


def test_long_silence_after_a_response_has_been_played_is_a_turn_of_nobody() -> None:
    drive = Drive(AgentScript(replies=(say(LINE), say("Are you still there?"))))
    drive.send(idle_session())
    ask(drive, "first")
    drive.wait(3_000)
    drive.hear(SILENCE * 80_000)
    done_ms = drive.truth.generations[0].done_ms
    played_ms = drive.truth.agent_items[0].generated_ms
    second = drive.truth.generations[1]
    assert (second.asked, second.began_ms) == ("idle", done_ms + played_ms + 6_000)
    names = kinds(drive.events)
    at = names.index("input_audio_buffer.timeout_triggered")
    assert names[at : at + 5] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    triggered, committed = drive.events[at], drive.events[at + 1]
    assert triggered["item_id"] == committed["item_id"]
    assert triggered["audio_end_ms"] - triggered["audio_start_ms"] == 6_000
    assert said(drive)[1] == "Are you still there?"
    completed = only(drive.events, "conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == ""


def test_silence_does_not_count_while_somebody_speaks_or_when_it_was_not_asked_for() -> None:
    drive = Drive(AgentScript(replies=(say(LINE),)))
    drive.send(idle_session())
    ask(drive, "first")
    drive.wait(3_000)
    drive.hear(SILENCE * 32_000)
    heard(drive, ORDER.ulaw)  # Some seconds before the silence would be long enough.
    drive.wait(5_000)
    assert not every(drive.events, "input_audio_buffer.timeout_triggered")
    plain = Drive(AgentScript(replies=(say(LINE),)))
    ask(plain, "first")
    plain.wait(60_000)
    assert not every(plain.events, "input_audio_buffer.timeout_triggered")


# --- results ------------------------------------------------------------------------------------


def calling(**more: Any) -> tuple[Drive, dict[str, Any]]:
    """A session whose model has called a function, and the output to send."""
    replies = (
        Reply((CallTool("quote"),)),
        say("That will be $9.05.", when="9.05"),
        say("Yes, of course."),
    )
    drive = Drive(AgentScript(replies=replies, **more))
    ask(drive, "first")
    drive.wait(2_000)
    call_id = only(drive.events, "response.function_call_arguments.done")["call_id"]
    output = {"type": "function_call_output", "call_id": call_id, "output": "$9.05"}
    return drive, {"type": "conversation.item.create", "event_id": "result", "item": output}


def test_response_overtakes_a_result_and_cannot_know_it() -> None:
    drive, result = calling(results=(ResultFault(overtaken=True),))
    drive.hear(ORDER.ulaw)
    assert drive.send(result) == []
    names = kinds(drive.hear(SILENCE * 5_600))
    at = names.index("response.created")
    assert names[at + 1 : at + 3] == ["conversation.item.added", "conversation.item.done"]
    drive.wait(5_000)
    assert said(drive) == ["Yes, of course."]
    ask(drive, "second")
    drive.wait(5_000)
    assert said(drive)[1:] == ["That will be $9.05."]
    call_id = result["item"]["call_id"]
    assert [g.known_results for g in drive.truth.generations] == [[], [], [call_id]]
    assert [(f.what, f.about) for f in drive.truth.faults] == [("overtaken", call_id)]


def test_result_that_nothing_overtakes_joins_in_the_end() -> None:
    drive, result = calling(results=(ResultFault(overtaken=True),))
    assert drive.send(result) + drive.wait(2_999) == []
    assert kinds(drive.wait(1)) == ["conversation.item.added", "conversation.item.done"]
    ask(drive, "second")
    drive.wait(5_000)
    assert kinds(drive.events).count("conversation.item.added") == 3
    assert said(drive) == ["That will be $9.05."]


def test_result_may_join_late_and_by_number() -> None:
    drive, result = calling(results=(None, ResultFault(after_ms=900)))
    assert kinds(drive.send(result)) == ["conversation.item.added", "conversation.item.done"]
    assert drive.send(result) + drive.wait(899) == []
    assert kinds(drive.wait(1)) == ["conversation.item.added", "conversation.item.done"]
    assert played(drive) == ["late_result"]


@pytest.mark.parametrize("fault", [ResultFault(overtaken=True), ResultFault(after_ms=9_000)])
def test_request_that_comes_after_a_result_is_answered_knowing_it(fault: ResultFault) -> None:
    drive, result = calling(results=(fault,))
    drive.send(result)
    assert kinds(ask(drive, "second"))[:3] == [
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    drive.wait(20_000)
    assert said(drive) == ["That will be $9.05."]
    assert kinds(drive.events).count("conversation.item.added") == 3


def test_late_result_is_still_judged() -> None:
    drive, result = calling(results=(ResultFault(after_ms=900),))
    drive.send({**result, "previous_item_id": "nobody"})
    error = only_error(drive.wait(900))
    assert (error["param"], error["event_id"]) == ("previous_item_id", "result")


# --- replies ------------------------------------------------------------------------------------


def test_reply_fails_some_times_and_is_then_given_whole() -> None:
    failure = Failure(message="Rate limit reached. Please try again in 6s.")
    script = AgentScript(
        replies=(
            say("Another."),
            Reply((Speak(LINE),), when="bagels", failure=failure, spoiled_times=3),
        )
    )
    drive = Drive(script)
    heard(drive, ORDER.ulaw)
    drive.wait(3_000)
    for _ in range(3):
        ask(drive, "again")
        drive.wait(5_000)
    statuses = [status for _, status, _ in drive.truth.responses]
    assert statuses == ["failed", "failed", "failed", "completed"]
    details = every(drive.events, "response.done")[0]["response"]["status_details"]
    assert details["error"]["message"] == failure.message
    assert said(drive) == [LINE]
    assert played(drive) == ["spoiled"] * 3


def test_something_new_goes_before_a_reply_that_failed() -> None:
    failing = Reply((Speak(LINE),), failure=Failure(), spoiled_times=1)
    drive = Drive(AgentScript(replies=(failing, say("That will be $9.05.", when="bagels"))))
    ask(drive, "first")
    drive.wait(3_000)
    heard(drive, ORDER.ulaw)
    drive.wait(5_000)
    assert said(drive) == ["That will be $9.05."]
    assert [g.asked for g in drive.truth.generations] == ["client", "turn"]


def test_same_reply_twice_in_a_script_is_two_replies() -> None:
    twice = Reply((Speak("Yes, of course."),), failure=Failure(), spoiled_times=1)
    drive = Drive(AgentScript(replies=(twice, twice)))
    for _ in range(5):
        ask(drive, "r")
        drive.wait(5_000)
    statuses = [status for _, status, _ in drive.truth.responses]
    assert statuses == ["failed", "completed", "failed", "completed", "completed"]
    assert said(drive)[2] == "I am sorry, could you say that again?"


def test_response_wanted_as_speech_may_come_as_text_only() -> None:
    written = Reply((Speak(LINE),), text_only=True, spoiled_times=1)
    drive = Drive(AgentScript(replies=(written,)))
    ask(drive, "first")
    events = drive.wait(5_000)
    assert only(events, "response.output_text.done")["text"] == LINE
    assert not every(events, "response.output_audio.delta")
    assert only(events, "response.done")["response"]["status"] == "completed"
    assert drive.truth.agent_items[0].generated_ms == 0
    ask(drive, "second")
    assert every(drive.wait(5_000), "response.output_audio.delta")
    assert said(drive) == [LINE, LINE]


@pytest.mark.parametrize("after_ms", [0, 1_000])
def test_response_may_be_incomplete_before_and_amid_its_audio(after_ms: int) -> None:
    failure = Failure("incomplete", "content_filter", after_audio_ms=after_ms)
    drive = Drive(AgentScript(replies=(Reply((Speak(LINE),), failure=failure),)))
    ask(drive, "first")
    done = only(drive.wait(5_000), "response.done")["response"]
    assert done["status_details"] == {"type": "incomplete", "reason": "content_filter"}
    assert sum(item.generated_ms for item in drive.truth.agent_items) == after_ms
    (generation,) = drive.truth.generations
    assert (generation.status, generation.reason) == ("incomplete", "content_filter")


def test_response_without_any_item_completes() -> None:
    drive = Drive(AgentScript(replies=(Reply(()),)))
    ask(drive, "first")
    done = only(drive.wait(5_000), "response.done")["response"]
    assert (done["status"], done["output"]) == ("completed", [])


def test_reply_for_what_a_request_is_told_is_for_nothing_else() -> None:
    script = AgentScript(
        replies=(Reply((Speak("One moment, please."),), when_told="be patient"), say(LINE))
    )
    drive = Drive(script)
    for _ in range(2):
        ask(drive, "told", instructions="Ask the caller to be patient.")
        drive.wait(5_000)
    ask(drive, "first", instructions="Greet the caller.")
    drive.wait(5_000)
    assert said(drive) == ["One moment, please.", "One moment, please.", LINE]


# --- going on -----------------------------------------------------------------------------------


def cut_drive() -> Drive:
    """A greeting that noise has cut."""
    script = AgentScript(
        replies=(say(LINE), say("That will be $9.05.", when="bagels")),
        wordless=TurnFault(no_commit=True),
        goes_on=True,
    )
    drive = Drive(script)
    ask(drive, "first")
    drive.wait(500)
    heard(drive, NOISE)
    assert drive.truth.agent_items[0].status == "incomplete"
    return drive


def truncate(item_id: str, audio_end_ms: int) -> dict[str, Any]:
    return {
        "type": "conversation.item.truncate",
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": audio_end_ms,
    }


def test_model_goes_on_from_where_its_message_was_truncated() -> None:
    drive = cut_drive()
    words = drive.truth.agent_items[0].words
    heard_ms = words[1][2]  # "Yes, I" were heard.
    drive.send(truncate(drive.truth.agent_items[0].item_id, heard_ms))
    ask(drive, "second", instructions="Go on.")
    drive.wait(10_000)
    assert said(drive)[1] == "can help you place your order. What would you like?"
    ask(drive, "third")
    drive.wait(5_000)
    assert said(drive)[2] == "That will be $9.05.", "what is finished is not gone on with"


def test_model_begins_anew_when_its_message_was_deleted() -> None:
    drive = cut_drive()
    item_id = drive.truth.agent_items[0].item_id
    drive.send({"type": "conversation.item.delete", "item_id": item_id})
    ask(drive, "second")
    drive.wait(10_000)
    assert said(drive)[1] == LINE


def test_words_of_the_caller_are_answered_instead() -> None:
    drive = cut_drive()
    heard(drive, ORDER.ulaw)
    drive.wait(5_000)
    assert said(drive)[1] == "That will be $9.05."


def test_truth_is_the_same_after_json() -> None:
    drive = Drive(AgentScript(replies=(say(LINE),), refusals=(RequestFault(),)))
    ask(drive, "first")
    drive.send(CREATE)
    drive.wait(5_000)
    assert type(drive.truth).from_json(drive.truth.to_json()) == drive.truth
