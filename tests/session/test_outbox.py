"""What goes into a message to a gateway, and in which order."""

from __future__ import annotations

from asheard.v1 import session_service_pb2
from session.link import BATCH_BYTES, AudioPiece, CallOutlet, Outbox


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
