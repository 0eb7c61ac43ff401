"""The lean playout of the load process plays as the strict simulated carrier does."""

from __future__ import annotations

import base64
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.playout import Playout
from simulators.twilio import Carrier

_MS = 1_000_000

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("media"), st.integers(1, 60).map(lambda ms: 8 * ms)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 90)),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@given(_STEPS)
def test_it_plays_the_same_bytes_as_the_strict_carrier(steps: list[tuple[str, int]]) -> None:
    carrier = Carrier(first_timestamp_ms=0, send_frames=False)
    playout = Playout()
    now_ms = 0
    playout.beat(0)
    carrier.advance(0)

    def send(**message: object) -> None:
        carrier.receive(json.dumps({**message, "streamSid": carrier.stream_sid}), now_ms)

    for kind, size in [*steps, ("clear", 0)]:
        if kind == "media":
            playout.media(b"\x80" * size)
            send(event="media", media={"payload": base64.b64encode(b"\x80" * size).decode()})
        elif kind == "mark":
            playout.mark(b"m")
            send(event="mark", mark={"name": "m"})
        elif kind == "clear":
            playout.clear(now_ms * _MS)
            send(event="clear")
        else:
            for _ in range(size):
                now_ms += 1
                if now_ms % 20 == 0:
                    playout.beat(now_ms * _MS)
            carrier.advance(now_ms)

    def positions(ranges: list[tuple[int, int]]) -> set[int]:
        return {byte for start, end in ranges for byte in range(start, end)}

    theirs = [(stretch.start_byte, stretch.end_byte) for stretch in carrier.truth.played]
    assert positions(playout.played) == positions(theirs)


def test_marks_come_back_when_their_audio_was_played() -> None:
    playout = Playout()
    assert playout.mark(b"before any audio")
    playout.media(bytes(320))
    assert not playout.mark(b"behind 40 ms")
    assert playout.beat(0) == []
    assert playout.beat(20 * _MS) == []
    assert playout.beat(40 * _MS) == [b"behind 40 ms"]
    assert not playout.playing


def test_clear_sets_every_mark_free_and_drops_the_rest() -> None:
    playout = Playout()
    playout.media(bytes(800))
    playout.mark(b"one")
    playout.mark(b"two")
    playout.beat(0)
    playout.beat(20 * _MS)
    assert playout.clear(25 * _MS) == [b"one", b"two"]
    assert playout.played == [(0, 160 + 40)]
    playout.media(bytes(160))
    playout.beat(40 * _MS)
    playout.beat(60 * _MS)
    playout.hang_up(60 * _MS)
    assert playout.played == [(0, 200), (800, 960)]
