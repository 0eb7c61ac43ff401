"""What goes into a message to a gateway, and in which order."""

from __future__ import annotations

import base64
import random

import pytest

from asheard.v1 import fact_pb2, session_service_pb2
from session.call import OutletFull
from session.link import (
    BATCH_BYTES,
    CONTROL_BYTES,
    KEPT_BYTES,
    MAX_CONTROLS,
    MAX_DETAIL_CHARS,
    PIECE_BYTES,
    AudioPiece,
    CallOutlet,
    Outbox,
)


def audio(call: int, n: int, size: int = 8) -> AudioPiece:
    return AudioPiece(call, f"{call}.{n}", 0, b"A" * size, False)


def taken(outbox: Outbox) -> tuple[list[str], list[str]]:
    """Kinds of control, and items of audio, of the next message."""
    message = outbox.take()
    if message is None:
        return [], []
    return (
        [str(control.WhichOneof("body")) for control in message.control],
        [piece.item_id for piece in message.agent_audio],
    )


def test_nothing_makes_no_message() -> None:
    outbox = Outbox()
    assert outbox.take() is None
    assert not outbox.posted.is_set()


def test_audio_keeps_its_order_within_a_call_and_is_fair_among_calls() -> None:
    outbox = Outbox()
    for n in range(3):
        outbox.audio(audio(1, n), urgent=False)
    outbox.audio(audio(2, 0), urgent=False)
    assert taken(outbox) == ([], ["1.0", "2.0", "1.1", "1.2"])


def test_a_flood_of_one_call_does_not_fill_the_message_of_another() -> None:
    outbox = Outbox()
    for n in range(10):
        outbox.audio(audio(1, n, BATCH_BYTES // 4), urgent=False)
    outbox.audio(audio(2, 0), urgent=False)
    first = taken(outbox)[1]
    assert "2.0" in first
    assert len(first) < 11
    assert outbox.posted.is_set(), "the rest follows"
    rest: list[str] = []
    while outbox.posted.is_set():
        rest += taken(outbox)[1]
    assert [item for item in first + rest if item != "2.0"] == [f"1.{n}" for n in range(10)]


def test_the_first_audio_of_an_item_is_urgent_and_what_follows_is_not() -> None:
    outbox = Outbox()
    outlet = CallOutlet(outbox, 1)
    for item, urgent in (("a", True), ("a", False), ("b", True)):
        outlet.audio(item, 0, b"AAAA", False)
        assert outbox.due.is_set() is urgent
        outbox.take()


def test_an_interrupt_takes_back_what_has_not_left_and_is_urgent() -> None:
    outbox = Outbox()
    outbox.audio(audio(1, 0), urgent=False)
    outbox.audio(audio(2, 0), urgent=False)
    assert not outbox.due.is_set()
    CallOutlet(outbox, 1).interrupt(session_service_pb2.Interrupt(interrupt_id=1))
    assert outbox.due.is_set()
    outbox.audio(audio(1, 1), urgent=False)
    assert taken(outbox) == (["interrupt"], ["2.0", "1.1"])
    assert not outbox.due.is_set()


def test_the_end_of_a_call_comes_in_a_later_message_than_its_audio() -> None:
    outbox = Outbox()
    outbox.audio(audio(1, 0), urgent=False)
    outbox.behind_audio(1, call_finished=session_service_pb2.CallFinished())
    assert taken(outbox) == ([], ["1.0"])
    assert outbox.posted.is_set()
    assert taken(outbox) == (["call_finished"], [])
    assert not outbox.posted.is_set()


def test_the_end_of_a_call_without_audio_comes_at_once() -> None:
    outbox = Outbox()
    outbox.audio(audio(2, 0), urgent=False)
    outbox.behind_audio(1, call_finished=session_service_pb2.CallFinished())
    assert taken(outbox) == (["call_finished"], ["2.0"])


@pytest.mark.parametrize("size", [0, 3, PIECE_BYTES - 3, PIECE_BYTES, 3 * PIECE_BYTES + 1])
def test_a_long_piece_is_cut_where_base64_may_be(size: int) -> None:
    outbox = Outbox()
    audio = random.Random(size).randbytes(size)
    CallOutlet(outbox, 1).audio("a", 2, base64.b64encode(audio), True)
    pieces: list[session_service_pb2.AgentAudio] = []
    while (message := outbox.take()) is not None:
        pieces += message.agent_audio
    assert b"".join(base64.b64decode(piece.payload) for piece in pieces) == audio
    assert max(len(piece.payload) for piece in pieces) <= PIECE_BYTES
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {(piece.item_id, piece.content_index) for piece in pieces} == {("a", 2)}


def test_what_waits_for_a_gateway_that_takes_nothing_is_bounded_for_each_call() -> None:
    outbox = Outbox()
    loud, quiet = CallOutlet(outbox, 1), CallOutlet(outbox, 2)
    megabyte = b"AAAA" * (1024 * 1024 // 4)
    for _ in range(KEPT_BYTES // len(megabyte)):
        loud.audio("a", 0, megabyte, False)
    with pytest.raises(OutletFull, match="8 MiB"):
        loud.audio("a", 0, b"AAAA", False)
    quiet.audio("a", 0, b"AAAA", False)
    outbox.take()
    loud.audio("a", 0, b"AAAA", False)
    loud.interrupt(session_service_pb2.Interrupt(interrupt_id=1))
    loud.audio("a", 0, megabyte, False)

    for number in range(MAX_CONTROLS - 1):
        loud.interrupt(session_service_pb2.Interrupt(interrupt_id=number))
    with pytest.raises(OutletFull, match="256"):
        loud.interrupt(session_service_pb2.Interrupt(interrupt_id=1))
    quiet.interrupt(session_service_pb2.Interrupt(interrupt_id=1))
    outbox.take()
    loud.interrupt(session_service_pb2.Interrupt(interrupt_id=1))


def test_what_no_message_can_hold_is_refused_to_the_call_that_it_is_of() -> None:
    outbox = Outbox()
    bad, good = CallOutlet(outbox, 1), CallOutlet(outbox, 2)
    good.audio("a", 0, b"AAAA", False)
    for item_id, content_index in (("a", 2**31), ("a", -1), ("i" * 5000, 0), ("\ud800", 0)):
        with pytest.raises(ValueError):
            bad.audio(item_id, content_index, b"AAAA", False)
    assert taken(outbox) == ([], ["a"])

    # And if it should get through in spite of that, it takes nothing with it.
    outbox.audio(AudioPiece(1, "\ud800", 0, b"AAAA", False), urgent=True)
    good.audio("b", 0, b"AAAA", False)
    assert taken(outbox) == ([], ["b"])
    ((call, error),) = outbox.faults
    assert (call, type(error)) == (1, UnicodeEncodeError)

    bad.finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, "\ud800" + "x" * 100_000)
    message = outbox.take()
    assert message is not None
    assert message.control[0].call_finished.detail == "?" + "x" * (MAX_DETAIL_CHARS - 1)


def test_much_control_goes_in_several_messages_ahead_of_audio() -> None:
    outbox = Outbox()
    outbox.audio(audio(1, 0), urgent=True)
    for call in range(1, 60):
        refused = session_service_pb2.CallRefused(detail="x" * 50_000)
        outbox.control(call, call_refused=refused)
    sizes, items, calls = [], [], []
    while outbox.posted.is_set():
        assert outbox.due.is_set(), "control does not wait"
        message = outbox.take()
        assert message is not None
        sizes.append(message.ByteSize())
        calls += [control.call for control in message.control]
        items.append(len(message.agent_audio))
    assert max(sizes) <= CONTROL_BYTES + 1024
    assert calls == list(range(1, 60))
    assert items == [0] * (len(items) - 1) + [1]


def test_only_the_newest_load_report_waits() -> None:
    outbox = Outbox()
    for active in range(3):
        outbox.report(session_service_pb2.LoadReport(active_calls=active))
    message = outbox.take()
    assert message is not None
    assert [control.load_report.active_calls for control in message.control] == [2]
    assert outbox.take() is None
