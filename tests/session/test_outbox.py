"""What goes into a message to a gateway, and in which order."""

from __future__ import annotations

import base64
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asheard.v1 import fact_pb2, session_service_pb2
from session.outbox import (
    BATCH_BYTES,
    CONTROL_BYTES,
    MAX_AUDIO_BYTES,
    MAX_CONTROLS,
    MAX_DETAIL_CHARS,
    PIECE_BYTES,
    AudioPiece,
    Outbox,
    Outlet,
    OutletFull,
)


def audio(call: int, n: int, size: int = 8) -> AudioPiece:
    return AudioPiece(call, f"{call}.{n}", 0, b"A" * size, False)


class Posts:
    """An outbox, and whether something that was posted since the last message does not wait."""

    def __init__(self) -> None:
        self.urgent: list[bool] = []
        self.outbox = Outbox(self.urgent.append)

    @property
    def due(self) -> bool:
        """Whether a message would be sent at once."""
        return any(self.urgent) or self.outbox.urgent

    def take(self) -> session_service_pb2.LinkResponse | None:
        """The next message."""
        self.urgent.clear()
        taken = self.outbox.take()
        assert taken.faults == []
        return taken.message


def outbox_alone() -> Outbox:
    return Outbox(lambda urgent: None)


def taken(outbox: Outbox) -> tuple[list[str], list[str]]:
    """Kinds of control, and items of audio, of the next message."""
    message = outbox.take().message
    if message is None:
        return [], []
    return (
        [str(control.WhichOneof("body")) for control in message.control],
        [piece.item_id for piece in message.agent_audio],
    )


def test_nothing_makes_no_message() -> None:
    outbox = outbox_alone()
    assert outbox.take().message is None
    assert not outbox.waiting


def test_audio_keeps_its_order_within_a_call_and_is_fair_among_calls() -> None:
    outbox = outbox_alone()
    for n in range(3):
        outbox.audio(audio(1, n), urgent=False)
    outbox.audio(audio(2, 0), urgent=False)
    assert taken(outbox) == ([], ["1.0", "2.0", "1.1", "1.2"])


def test_a_flood_of_one_call_does_not_fill_the_message_of_another() -> None:
    outbox = outbox_alone()
    for n in range(10):
        outbox.audio(audio(1, n, BATCH_BYTES // 4), urgent=False)
    outbox.audio(audio(2, 0), urgent=False)
    first = taken(outbox)[1]
    assert "2.0" in first
    assert len(first) < 11
    rest: list[str] = []
    while outbox.waiting:
        rest += taken(outbox)[1]
    assert [item for item in first + rest if item != "2.0"] == [f"1.{n}" for n in range(10)]


def test_the_first_audio_of_an_item_is_urgent_and_what_follows_is_not() -> None:
    posts = Posts()
    outlet = Outlet(posts.outbox, 1)
    for item, urgent in (("a", True), ("a", False), ("b", True)):
        outlet.audio(item, 0, b"AAAA", False)
        assert posts.due is urgent
        posts.take()


def test_an_interrupt_takes_back_what_has_not_left_and_is_urgent() -> None:
    posts = Posts()
    outbox = posts.outbox
    outbox.audio(audio(1, 0), urgent=False)
    outbox.audio(audio(2, 0), urgent=False)
    assert not any(posts.urgent)
    Outlet(outbox, 1).interrupt(session_service_pb2.Interrupt(interrupt_id=1))
    assert posts.due
    outbox.audio(audio(1, 1), urgent=False)
    assert taken(outbox) == (["interrupt"], ["2.0", "1.1"])
    posts.take()
    assert not posts.due


def test_the_end_of_a_call_comes_in_a_later_message_than_its_audio() -> None:
    outbox = outbox_alone()
    outbox.audio(audio(1, 0), urgent=False)
    outbox.control_after_audio(1, call_finished=session_service_pb2.CallFinished())
    assert taken(outbox) == ([], ["1.0"])
    assert outbox.waiting
    assert taken(outbox) == (["call_finished"], [])
    assert not outbox.waiting


def test_the_end_of_a_call_without_audio_comes_at_once() -> None:
    outbox = outbox_alone()
    outbox.audio(audio(2, 0), urgent=False)
    outbox.control_after_audio(1, call_finished=session_service_pb2.CallFinished())
    assert taken(outbox) == (["call_finished"], ["2.0"])


@pytest.mark.parametrize("size", [0, 3, PIECE_BYTES - 3, PIECE_BYTES, 3 * PIECE_BYTES + 1])
def test_a_long_piece_is_cut_where_base64_may_be(size: int) -> None:
    outbox = outbox_alone()
    audio = random.Random(size).randbytes(size)
    Outlet(outbox, 1).audio("a", 2, base64.b64encode(audio), True)
    pieces: list[session_service_pb2.AgentAudio] = []
    while (message := outbox.take().message) is not None:
        pieces += message.agent_audio
    assert b"".join(base64.b64decode(piece.payload) for piece in pieces) == audio
    assert max(len(piece.payload) for piece in pieces) <= PIECE_BYTES
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {(piece.item_id, piece.content_index) for piece in pieces} == {("a", 2)}


def test_what_waits_for_a_gateway_that_takes_nothing_is_bounded_for_each_call() -> None:
    outbox = outbox_alone()
    loud, quiet = Outlet(outbox, 1), Outlet(outbox, 2)
    megabyte = b"AAAA" * (1024 * 1024 // 4)
    for _ in range(MAX_AUDIO_BYTES // len(megabyte)):
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
    outbox = outbox_alone()
    bad, good = Outlet(outbox, 1), Outlet(outbox, 2)
    good.audio("a", 0, b"AAAA", False)
    for item_id, content_index in (("a", 2**31), ("a", -1), ("i" * 5000, 0), ("\ud800", 0)):
        with pytest.raises(ValueError):
            bad.audio(item_id, content_index, b"AAAA", False)
    assert taken(outbox) == ([], ["a"])

    # And if it should get through in spite of that, it takes nothing with it.
    outbox.audio(AudioPiece(1, "\ud800", 0, b"AAAA", False), urgent=True)
    good.audio("b", 0, b"AAAA", False)
    message, ((call, error),) = outbox.take()
    assert message is not None
    assert [piece.item_id for piece in message.agent_audio] == ["b"]
    assert (call, type(error)) == (1, UnicodeEncodeError)

    bad.finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, "\ud800" + "x" * 100_000)
    message = outbox.take().message
    assert message is not None
    assert message.control[0].call_finished.detail == "?" + "x" * (MAX_DETAIL_CHARS - 1)


def test_much_control_goes_in_several_messages_before_audio() -> None:
    posts = Posts()
    outbox = posts.outbox
    outbox.audio(audio(1, 0), urgent=True)
    for call in range(1, 60):
        refused = session_service_pb2.CallRefused(detail="x" * 50_000)
        outbox.control(call, call_refused=refused)
    sizes, items, calls = [], [], []
    while outbox.waiting:
        assert posts.due, "control does not wait"
        message = posts.take()
        assert message is not None
        sizes.append(message.ByteSize())
        calls += [control.call for control in message.control]
        items.append(len(message.agent_audio))
    assert max(sizes) <= CONTROL_BYTES + 1024
    assert calls == list(range(1, 60))
    assert items == [0] * (len(items) - 1) + [1]


def test_only_the_newest_load_report_waits() -> None:
    outbox = outbox_alone()
    for active in range(3):
        outbox.report(session_service_pb2.LoadReport(active_calls=active))
    message = outbox.take().message
    assert message is not None
    assert [control.load_report.active_calls for control in message.control] == [2]
    assert outbox.take().message is None


# --- whatever is posted -------------------------------------------------------------------------

CALLS = (1, 2, 3)


@dataclass
class Model:
    """What an outbox must do, said plainly: per call, what is there and in what order."""

    audio: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Items that wait, of each call."""
    control: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Interrupts that wait, of each call."""
    finished: set[int] = field(default_factory=set)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.sampled_from(CALLS), st.sampled_from([0, 8, 50_000])),
        st.tuples(st.just("interrupt"), st.sampled_from(CALLS), st.just(0)),
        st.tuples(st.just("finished"), st.sampled_from(CALLS), st.just(0)),
        st.tuples(st.just("take"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(steps)
def test_nothing_is_lost_doubled_or_out_of_order_and_interrupts_take_their_audio_back(
    script: list[tuple[str, int, int]],
) -> None:
    outbox, model = outbox_alone(), Model()
    outlets = {call: Outlet(outbox, call) for call in CALLS}
    for number, (kind, call, size) in enumerate([*script, *[("take", 0, 0)] * 200], start=1):
        match kind:
            case "audio" if call not in model.finished:
                outlets[call].audio(f"{number}", 0, b"A" * size, False)
                model.audio[call].append(f"{number}")
            case "interrupt" if call not in model.finished:
                outlets[call].interrupt(session_service_pb2.Interrupt(interrupt_id=number))
                model.control[call].append(number)
                model.audio[call].clear()
            case "finished" if call not in model.finished:
                outlets[call].finished(fact_pb2.CALL_OUTCOME_COMPLETED, "")
                model.finished.add(call)
            case "take":
                take_and_compare(outbox, model)
    assert not outbox.waiting
    assert not any(model.audio.values())
    assert not any(model.control.values())


def take_and_compare(outbox: Outbox, model: Model) -> None:
    """The next message is the beginning of what waits, of each call."""
    waited = {call: len(items) for call, items in model.audio.items() if items}
    message, faults = outbox.take()
    assert faults == []
    if message is None:
        return
    for control in message.control:
        if control.WhichOneof("body") == "call_finished":
            assert not model.audio[control.call], "its end comes after all its audio"
        else:
            assert control.interrupt.interrupt_id == model.control[control.call].pop(0)
    assert not any(model.control.values()), "audio and the rest wait for it"
    sent: dict[int, list[str]] = defaultdict(list)
    for piece in message.agent_audio:
        sent[piece.call].append(piece.item_id)
    for call, items in sent.items():
        assert items == model.audio[call][: len(items)]
        del model.audio[call][: len(items)]
    fewest = min((len(sent[call]) for call in waited if model.audio[call]), default=None)
    if fewest is not None:  # what is left waits because the message is full
        assert max(map(len, sent.values())) <= fewest + 1, "each call has its turn"
        assert sum(len(piece.payload) for piece in message.agent_audio) >= BATCH_BYTES


@given(st.integers(1, 6), st.integers(1, 40))
def test_a_call_that_has_little_never_waits_for_those_that_have_much(loud: int, n: int) -> None:
    outbox = outbox_alone()
    for call in range(loud):
        for piece in range(n):
            outbox.audio(audio(call, piece, 30_000), urgent=False)
    outbox.audio(audio(99, 0), urgent=False)
    assert "99.0" in taken(outbox)[1]


@given(st.lists(st.integers(0, MAX_AUDIO_BYTES // 3), min_size=1, max_size=8))
def test_a_call_never_has_more_waiting_than_it_may(sizes: list[int]) -> None:
    outbox = outbox_alone()
    waiting = 0
    for size in sizes:
        piece = AudioPiece(1, "a", 0, bytes(size), False)
        if waiting + size > MAX_AUDIO_BYTES:
            with pytest.raises(OutletFull):
                outbox.audio(piece, urgent=False)
        else:
            outbox.audio(piece, urgent=False)
            waiting += size
    left = 0
    while (message := outbox.take().message) is not None:
        left += sum(len(piece.payload) for piece in message.agent_audio)
    assert left == waiting
