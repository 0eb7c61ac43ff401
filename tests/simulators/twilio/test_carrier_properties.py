"""Whatever a server sends and whenever: playout, marks and flushes keep their laws."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.twilio.carrier import Carrier
from tests.simulators.twilio.drive import SID, clear, mark, media


@dataclass(frozen=True)
class Act:
    after_ms: int
    kind: str
    size: int = 0


ACTS = st.lists(
    st.builds(
        Act,
        after_ms=st.integers(0, 400),
        kind=st.sampled_from(["media", "media", "media", "mark", "clear", "wait"]),
        size=st.integers(0, 6_000),
    ),
    max_size=40,
)

LAWS = settings(max_examples=60, deadline=None)


def play(acts: list[Act], first_timestamp_ms: int, *, small_steps: bool = False) -> Carrier:
    """Carry out the acts, then let everything play out."""
    carrier = Carrier(stream_sid=SID, first_timestamp_ms=first_timestamp_ms)
    now = 0
    for number, act in enumerate(acts):
        if small_steps:
            for step in range(now, now + act.after_ms):
                carrier.advance(step)
        now += act.after_ms
        match act.kind:
            case "media":
                carrier.receive(media(act.size), now)
            case "mark":
                carrier.receive(mark(f"m{number}"), now)
            case "clear":
                carrier.receive(clear(), now)
            case _:
                carrier.advance(now)
    carrier.advance(now + 60_000)
    return carrier


@LAWS
@given(ACTS, st.integers(0, 100))
def test_every_byte_is_played_or_dropped_exactly_once_and_in_order(
    acts: list[Act], first_timestamp_ms: int
) -> None:
    truth = play(acts, first_timestamp_ms).truth
    ranges = [(s.start_byte, s.end_byte) for s in truth.played]
    ranges += [(f.start_byte, f.end_byte) for f in truth.flushes if f.end_byte > f.start_byte]
    at = 0
    for start, end in sorted(ranges):
        assert start == at and end > start
        at = end
    assert at == len(truth.audio) == sum(a.size for a in acts if a.kind == "media")


@LAWS
@given(ACTS, st.integers(0, 100))
def test_playing_never_overlaps_and_lies_on_the_grid(
    acts: list[Act], first_timestamp_ms: int
) -> None:
    played = play(acts, first_timestamp_ms).truth.played
    for stretch in played:
        assert (stretch.start_ms - first_timestamp_ms) % 20 == 0
    for before, after in zip(played, played[1:], strict=False):
        assert after.start_byte >= before.end_byte
        assert (after.start_ms - before.start_ms) * 8 > before.end_byte - before.start_byte


@LAWS
@given(ACTS, st.integers(0, 100))
def test_each_mark_returns_once_in_order_when_its_audio_is_over(
    acts: list[Act], first_timestamp_ms: int
) -> None:
    truth = play(acts, first_timestamp_ms).truth
    sent = [f"m{n}" for n, a in enumerate(acts) if a.kind == "mark"]
    assert [e.name for e in truth.echoes] == sent
    for echo in truth.echoes:
        assert echo.at_ms >= echo.received_ms
        ends = [
            s.start_ms + -(-(min(echo.position, s.end_byte) - s.start_byte) // 8)
            for s in truth.played
            if s.start_byte < echo.position
        ]
        if echo.flushed:
            flush = next(f for f in truth.flushes if echo.name in f.marks)
            assert echo.at_ms == flush.at_ms
            assert flush.start_byte < echo.position <= flush.end_byte
        else:
            gone = [f.at_ms for f in truth.flushes if f.end_byte >= echo.position > f.start_byte]
            assert echo.at_ms == max([echo.received_ms, *(ends if not gone else [])])


@LAWS
@given(ACTS, st.integers(0, 100))
def test_how_time_is_cut_into_calls_makes_no_difference(
    acts: list[Act], first_timestamp_ms: int
) -> None:
    coarse, fine = (play(acts, first_timestamp_ms, small_steps=s) for s in (False, True))
    assert coarse.truth == fine.truth
    assert coarse.take() == fine.take()


@LAWS
@given(ACTS, st.integers(0, 100))
def test_messages_leave_in_the_order_of_their_times_and_numbers(
    acts: list[Act], first_timestamp_ms: int
) -> None:
    outgoing = play(acts, first_timestamp_ms).take()
    times = [o.at_ms for o in outgoing]
    assert times == sorted(times)
    numbers = [int(o.message["sequenceNumber"]) for o in outgoing[1:]]
    assert numbers == list(range(1, len(outgoing)))
