"""What becomes of events on their way out: lost, doubled, late, out of order, odd."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simulators.realtime.faults import EventFault
from simulators.realtime.script import AgentScript, CallTool, Reply, Speak, bakery, say
from simulators.realtime.tampering import Tampering
from tests.simulators.realtime.drive import CREATE, ORDER, Drive, every, kinds, only, only_error

LINE = "Yes, of course."
CALL = CallTool("quote", '{"items": ["bagels"]}')


def answered(reply: Reply, *faults: EventFault) -> Drive:
    """A session that has been asked once, with faults of the reply's."""
    given = Reply(reply.parts, events=faults)
    drive = Drive(AgentScript(replies=(given, say("Something else."))))
    drive.send(CREATE)
    drive.wait(5_000)
    return drive


def order(drive: Drive, *names: str) -> list[str]:
    """Which of these events came, in order; names may leave the ``response.`` out."""
    short = [kind.removeprefix("response.") for kind in kinds(drive.events)]
    return [name for name in short if name in names]


# --- lost and doubled ---------------------------------------------------------------------------


def test_lost_done_leaves_the_conversation_free_all_the_same() -> None:
    drive = answered(say(LINE), EventFault("response.done", lose=True))
    assert "response.done" not in kinds(drive.events)
    assert kinds(drive.events)[-1] == "rate_limits.updated"
    assert drive.truth.generations[0].status == "completed"
    assert only_error(drive.send({"type": "response.cancel"}))["code"].endswith("not_active")
    drive.send(CREATE)
    assert "response.done" in kinds(drive.wait(5_000)), "a reply's faults are its own"
    assert [(f.what, f.about) for f in drive.truth.faults][1:] == [("lost", "response.done")]


def test_response_may_have_no_beginning() -> None:
    drive = answered(say(LINE), EventFault("response.created", lose=True))
    assert order(drive, "created", "done") == ["done"]


def test_done_may_come_twice() -> None:
    drive = answered(say(LINE), EventFault("response.done", twice=True))
    first, second = every(drive.events, "response.done")
    assert first == second


# --- late and out of order ----------------------------------------------------------------------


def test_text_may_come_after_its_items_and_its_responses_end() -> None:
    late = EventFault(
        "response.output_audio_transcript.delta", nth=2, times=None, after="response.done"
    )
    drive = answered(say(LINE), late)
    names = order(drive, "output_audio_transcript.delta", "output_item.done", "done")
    assert names[:3] == ["output_audio_transcript.delta", "output_item.done", "done"]
    assert set(names[3:]) == {"output_audio_transcript.delta"}
    deltas = every(drive.events, "response.output_audio_transcript.delta")
    assert "".join(e["delta"] for e in deltas) == LINE


def test_audio_may_come_after_its_items_end_and_is_all_there() -> None:
    late = EventFault("response.output_audio.delta", nth=3, times=None, after="response.done")
    drive = answered(say(LINE), late)
    names = order(drive, "output_audio.delta", "output_audio.done", "done")
    assert names[:4] == ["output_audio.delta", "output_audio.delta", "output_audio.done", "done"]
    assert set(names[4:]) == {"output_audio.delta"}


def test_arguments_may_come_before_their_item_and_after_its_end() -> None:
    events = ("function_call_arguments.done", "output_item.done", "done")
    drive = answered(Reply((CALL,)))
    assert order(drive, *events) == list(events)
    held = EventFault("response.function_call_arguments.done", after="response.output_item.done")
    drive = answered(Reply((CALL,)), held)
    assert order(drive, *events) == [
        "output_item.done",
        "function_call_arguments.done",
        "done",
    ]
    held = EventFault("response.output_item.added", after="response.function_call_arguments.done")
    drive = answered(Reply((CALL,)), held)
    assert order(drive, "output_item.added", "function_call_arguments.done") == [
        "function_call_arguments.done",
        "output_item.added",
    ]


def test_cancelled_response_may_end_after_the_next_one_has_begun() -> None:
    slow = Reply(
        bakery().replies[1].parts,
        speed=0.8,
        events=(EventFault("response.done", after="response.created"),),
    )
    drive = Drive(AgentScript(replies=(slow, say(LINE))))
    drive.send(CREATE)
    drive.wait(1_000)
    drive.hear_speech(ORDER)
    drive.wait(3_000)
    first, second = (g.response_id for g in drive.truth.generations)
    ends = [
        (e["type"], e["response"]["id"])
        for e in drive.events
        if e["type"] in ("response.created", "response.done")
    ]
    assert ends == [
        ("response.created", first),
        ("response.created", second),
        ("response.done", first),
        ("response.done", second),
    ]


def test_event_may_be_late_by_time_and_by_number() -> None:
    script = AgentScript(events=(EventFault("response.created", nth=2, after_ms=100),))
    drive = Drive(script)
    assert kinds(drive.send(CREATE)) == ["response.created"]
    drive.wait(5_000)
    assert drive.send(CREATE) + drive.wait(99) == []
    assert kinds(drive.wait(1)) == ["response.created"]


def test_held_event_is_never_sent_if_what_it_awaits_never_comes() -> None:
    drive = answered(say(LINE), EventFault("response.done", after="session.updated"))
    assert "response.done" not in kinds(drive.wait(60_000))


def test_what_awaits_a_lost_event_awaits_the_next_one() -> None:
    faults = (
        EventFault("response.done", lose=True),
        EventFault("rate_limits.updated", after="response.done"),
    )
    drive = Drive(AgentScript(events=faults))
    for _ in range(2):
        drive.send(CREATE)
        drive.wait(5_000)
    assert kinds(drive.events)[-3:] == [
        "response.done",
        "rate_limits.updated",
        "rate_limits.updated",
    ]


def test_faults_may_be_about_items_of_one_type() -> None:
    script = AgentScript(
        replies=(Reply((Speak("Let me see."), CALL)),),
        events=(EventFault("conversation.item.added", "function_call", lose=True),),
    )
    drive = Drive(script)
    drive.send(CREATE)
    drive.wait(5_000)
    added = every(drive.events, "conversation.item.added")
    assert [e["item"]["type"] for e in added] == ["message"]


# --- odd shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("response.status_details", "rate limited"),
        ("response.status_details", {"type": "failed", "error": "overloaded"}),
        ("response.output.0.id", None),
        ("response.usage", 1.5),
        ("response", "done"),
    ],
)
def test_fields_may_be_anything(path: str, value: Any) -> None:
    drive = answered(say(LINE), EventFault("response.done", set={path: value}))
    event: Any = only(drive.events, "response.done")
    for name in path.split("."):
        event = event[int(name) if name.isdecimal() else name]
    assert event == value
    drive.send(CREATE)
    assert "response.done" in kinds(drive.wait(5_000))


def test_fields_may_be_missing() -> None:
    drive = answered(
        say(LINE),
        EventFault("conversation.item.added", remove=("item.id", "event_id", "nothing.here")),
        EventFault("response.done", remove=("response.output.0",)),
    )
    added = only(drive.events, "conversation.item.added")
    assert "event_id" not in added and "id" not in added["item"]
    assert only(drive.events, "response.done")["response"]["output"] == []


def test_numbers_may_be_floats_and_arguments_an_object() -> None:
    drive = answered(
        Reply((CALL,)),
        EventFault(
            "response.function_call_arguments.done",
            set={"arguments": {"items": ["bagels"]}, "output_index": 0.0},
        ),
    )
    done = only(drive.events, "response.function_call_arguments.done")
    assert done["arguments"] == {"items": ["bagels"]}
    assert json.dumps(done["output_index"]) == "0.0"


def test_path_that_is_not_there_changes_nothing() -> None:
    drive = answered(
        say(LINE), EventFault("response.done", set={"response.output.7.id": "x", "no.where": 1})
    )
    assert "no" not in only(drive.events, "response.done")


@pytest.mark.parametrize("frame", ['{"type": "respon', "[1, 2]", "null", '"response.done"'])
def test_frame_may_be_no_event_at_all(frame: str) -> None:
    drive = answered(say(LINE), EventFault("response.done", frame=frame))
    assert drive.frames == [frame]
    assert "response.done" not in kinds(drive.events)


def test_server_may_say_things_unasked() -> None:
    error = {"type": "error", "error": {"type": "server_error", "code": None, "message": "Oh."}}
    unknown = {"type": "response.pondering", "event_id": "mine"}
    drive = answered(say(LINE), EventFault("response.created", lose=True, add=(error, unknown)))
    said = drive.events[2:4]
    assert said[0] == {"event_id": said[0]["event_id"], **error}
    assert said[1] == unknown


# --- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"lose": True}, {"twice": True}, {"frame": "x"}])
def test_audio_is_never_lost_or_changed(fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="may be late"):
        EventFault("response.output_audio.delta", **fault)


def test_session_without_faults_does_not_come_here() -> None:
    drive = Drive(bakery())
    assert Tampering((), drive.truth).idle
    assert not Tampering((EventFault("response.done"),), drive.truth).idle


def test_beta_names_are_given_to_what_the_rules_let_through() -> None:
    fault = EventFault("response.output_audio.done", after="response.done")
    drive = Drive(AgentScript(replies=(say(LINE),), names="beta", events=(fault,)), configure=False)
    drive.send(CREATE)
    drive.wait(5_000)
    assert kinds(drive.events)[-3:-1] == ["response.done", "response.audio.done"]
