"""The caller's regular frames: the short way does what the long one would, whatever comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asheard.v1 import session_service_pb2
from gateway.caller_path import CallerPath
from gateway.instant import Instant
from gateway.playout.clock import MediaClock
from tests.examples import examples
from tests.gateway.media_rig import BEGAN, RecordingLane, Rig
from tests.gateway.wire import FRAME, PING, STREAM, TEXT, frame, media, text

Event = tuple[str, Any]

STEPS = [20, 40, 13, 29, 30, 31, 10, 9, 1, 0, -20, 90, 60_000]
"""From one timestamp to the next, in ms."""
PAYLOADS = [
    FRAME, "", "====", "AA==", "AAA=", "A===", "=AAA", "AA=A", "AAAA", "AAAAA", "AA AA",
    "AA-_", "\u00e9===", FRAME[:-1], FRAME[:-4], FRAME + FRAME, "+" + FRAME[1:],
    "\\" + FRAME[1:], '"' + FRAME[1:], "\u0000" + FRAME[1:], "\u007f" + FRAME[1:], None, 7,
]  # fmt: skip
NO_BASE64 = ["." + FRAME[1:], "[" + FRAME[1:], "`" + FRAME[1:], "@" + FRAME[1:], " " + FRAME[1:]]
"""As long as a regular frame's, and plain text."""
TIMESTAMPS = [
    "40", "040", "-1", "4e1", "", " 40", "40 ", "172799999", "172800000", "9" * 9,
    "9" * 10, "9" * 19, None, 40, 40.5, "40.0",
]  # fmt: skip
CHANGES: list[dict[str, object]] = [
    {}, {"track": "outbound"}, {"track": "none"}, {"track": None}, {"chunk": "none"}, {"chunk": 7},
    {"chunk": "\\n"}, {"extra": "x"}, {"streamSid": "MZother"}, {"streamSid": ""},
    {"streamSid": STREAM.lower()}, {"streamSid": STREAM + "0"}, {"sequenceNumber": 7},
    {"sequenceNumber": {"a": 1}}, {"timestamp": "none"}, {"payload": "none"}, {"event": "mediax"},
    {"event": "mark"}, {"event": 1}, {"media": "none"}, {"media": []},
]  # fmt: skip
STYLES: list[dict[str, Any]] = [{}, {"indent": 1}, {"sort_keys": True, "separators": (",", ":")}]
RAW = {
    "behind it": lambda text: text + "x",
    "space behind it": lambda text: text + " ",
    "space before it": lambda text: " " + text,
    "no end": lambda text: text[:-1],
    "two ends": lambda text: text + "}",
    "a comma": lambda text: text[:-1] + ",}",
    "two events": lambda text: text.replace("{", '{"event":"media",', 1),
    "another event": lambda text: text.replace("{", '{"event":"mark",', 1),
    "another stream": lambda text: text.replace("{", '{"streamSid":"MZother",', 1),
    "two timestamps": lambda text: text.replace('"track"', '"timestamp":"20","track"'),
    "two tracks": lambda text: text.replace('"track"', '"track":"outbound","track"'),
    "behind a string": lambda text: text.replace('"inbound"', '"inbound"x'),
    "an escape": lambda text: text.replace("inbound", "in\\u0062ound"),
    "upper case": lambda text: text.replace("event", "Event"),
    "no colon": lambda text: text.replace(":", "", 1),
    "no event": lambda text: text.replace('"event":"media",', ""),
    "not UTF-8": lambda text: text.replace('"1"', '"\udcff"'),
    "a control character": lambda text: text.replace('"1"', '"\n"'),
}  # fmt: skip

_EVENTS: st.SearchStrategy[list[Event]] = st.lists(
    st.one_of(
        st.tuples(st.just("regular"), st.integers(1, 12)),
        st.tuples(st.just("regular"), st.integers(1, 3)),
        st.tuples(
            st.just("media"),
            st.tuples(
                st.sampled_from(STEPS),
                st.sampled_from(PAYLOADS),
                st.sampled_from(CHANGES),
                st.sampled_from(STYLES),
            ),
        ),
        st.tuples(st.just("timestamp"), st.sampled_from(TIMESTAMPS)),
        st.tuples(st.just("wait"), st.sampled_from([0.3, 7, 20, 100, 5000])),
        st.tuples(
            st.sampled_from(
                ["speak", "interrupt", "echo", "ping", "key", "binary", "unmasked", "pieces",
                 "nonsense", "stop", "close", "full"]
            ),
            st.none(),
        ),
    ),
    max_size=25,
)  # fmt: skip


def play(events: list[Event], *cuts: int, short: bool = True) -> dict[str, object]:
    """What is seen of a call to which all this happens, in pieces of these lengths; ``short``:
    whether regular frames may go the short way."""

    async def run() -> dict[str, object]:
        with pytest.MonkeyPatch.context() as patch:
            if not short:
                patch.setattr(CallerPath, "take", lambda path, data, at: data)
            rig = Rig()
            rig.start()
            clock = [40]
            for kind, detail in events:
                rig.take(happen(rig, kind, detail, clock), *cuts)
            return rig.seen()

    return asyncio.run(run())


def happen(rig: Rig, kind: str, detail: Any, clock: list[int]) -> bytes:
    """One thing; what Twilio sends over it."""
    timestamp_ms = clock[0]
    match kind:
        case "regular":
            wire = b""
            for _ in range(detail):
                wire += text(media(str(clock[0])))
                clock[0] += 20
                rig.wait(20)
            return wire
        case "media":
            step, payload, changes, style = detail
            timestamp_ms = max(0, timestamp_ms - 20 + step)
            clock[0] = timestamp_ms + 20
            return text(media(str(timestamp_ms), payload, **changes), **style)
        case "timestamp":
            return text(media(detail))
        case "wait":
            rig.wait(detail)
        case "speak" if not rig.over:
            rig.listener.agent_audio(f"item{clock[0]}", 0, FRAME.encode() * 20, False, rig.at)
        case "interrupt" if not rig.over:
            interrupt = session_service_pb2.Interrupt(interrupt_id=len(rig.sink.written) + 1)
            rig.listener.interrupted(interrupt, rig.at)
        case "echo":
            return b"".join(
                text({"event": "mark", "streamSid": STREAM, "mark": {"name": f"{mark}{n}"}})
                for n in range(9)
                for mark in "spf"
            )
        case "ping":
            return frame(PING, b"are you there?")
        case "key":
            return text({"event": "dtmf", "streamSid": STREAM, "dtmf": {"digit": "5"}})
        case "binary":
            return frame(0x82, b"x")
        case "raw":
            whole = json.dumps(media(str(timestamp_ms)), separators=(",", ":"))
            return frame(TEXT, RAW[detail](whole).encode(errors="surrogateescape"))
        case "unmasked":
            content = json.dumps(media(str(timestamp_ms))).encode()
            return b"\x81\x7e" + len(content).to_bytes(2, "big") + content
        case "pieces":
            return frame(0x01, b'{"event":') + frame(0x80, b'"odd"}')
        case "nonsense":
            return frame(TEXT, b'{"event":"media"')
        case "stop":
            return text({"event": "stop", "streamSid": STREAM})
        case "close":
            return frame(0x88, b"\x03\xe8")
        case "full":
            rig.lane.full = True
    return b""


@settings(max_examples=examples(300), deadline=None)
@given(_EVENTS, st.lists(st.integers(1, 700), max_size=20))
def test_both_ways_do_the_same_however_data_are_cut(events: list[Event], cuts: list[int]) -> None:
    assert play(events, *cuts) == play(events, short=False)


ODDITIES: list[Event] = [
    *(("media", (step, FRAME, {}, {})) for step in STEPS),
    *(("media", (20, payload, {}, {})) for payload in PAYLOADS),
    *(("media", (20, FRAME, changes, {})) for changes in CHANGES),
    *(("media", (20, FRAME, {}, style)) for style in STYLES),
    *(("timestamp", timestamp) for timestamp in TIMESTAMPS),
    *(("raw", name) for name in RAW),
]


@pytest.mark.parametrize("odd", ODDITIES, ids=range(len(ODDITIES)))
def test_an_odd_message_among_regular_ones_does_the_same(odd: Event) -> None:
    events = [("regular", 2), odd, ("regular", 2)]
    assert play(events) == play(events, short=False)


@pytest.mark.parametrize("payload", NO_BASE64)
async def test_a_regular_frame_is_proved_to_be_base64_where_it_is_pasted(payload: str) -> None:
    """By the session worker. One that is not regular is looked at whole, and so is the first."""
    rig = Rig()
    rig.start()
    rig.take(text(media("40", payload)))
    assert rig.lane.frames[-1][:2] == (payload.encode(), 40)
    rig.take(text(media("400", payload)))
    assert [code for code, _ in rig.sink.closed] == [1007]


async def test_twilios_own_messages_go_the_short_way() -> None:
    # As in Twilio's documentation, and as its servers send them: fields in another order.
    rig = Rig()
    rig.start()
    looked_at = len(rig.connection.texts)
    for n in range(2, 8):
        message = (
            f'{{"event":"media","sequenceNumber":"{n + 3}","media":{{"track":"inbound","chunk":'
            f'"{n + 2}","timestamp":"{20 * n}","payload":"{FRAME}"}},"streamSid":"{STREAM}"}}'
        )
        rig.take(frame(TEXT, message.encode(), b"\xff\x00\x80\x01"))
    assert [timestamp_ms for _, timestamp_ms, _ in rig.lane.frames[2:]] == [
        40,
        60,
        80,
        100,
        120,
        140,
    ]
    assert len(rig.connection.texts) == looked_at


async def test_a_frame_that_is_waited_for_is_told_to_its_call() -> None:
    rig = Rig()
    rig.start()
    rig.listener.agent_audio("item", 0, FRAME.encode() * 20, False, rig.at)
    rig.listener.interrupted(session_service_pb2.Interrupt(interrupt_id=1), rig.at)
    fence = json.loads(rig.sink.written[-1].rpartition(b"{")[2].join([b"{", b""])[:-1])
    rig.take(text({"event": "mark", "streamSid": STREAM, "mark": fence}))
    assert not any("positions_fixed" in control for control in rig.lane.controls)
    rig.take(text(media("40")))
    assert any("positions_fixed" in control for control in rig.lane.controls), "it was timed by it"


async def test_what_the_lane_drops_is_counted() -> None:
    rig = Rig()
    rig.start()
    rig.lane.full = True
    rig.take(text(media("40")) + text(media("60")))
    assert rig.count("asheard_caller_frames_dropped_total") == 2


def test_it_takes_what_is_regular_and_gives_back_the_rest() -> None:
    clock, lane, dropped = MediaClock(), RecordingLane(), []
    path = CallerPath(STREAM, BEGAN, clock, lane, lambda: dropped.append(1))
    at = Instant(BEGAN.mono_us + 50_000, BEGAN.unix_us + 50_000)
    frames = [text(media(str(timestamp_ms))) for timestamp_ms in (20, 40, 100, 120)]
    assert path.take(frames[0], at) == frames[0], "nothing came before it"
    clock.receive(0, 160, 0)
    assert path.take(b"".join(frames), at) == frames[2] + frames[3], "there is a gap"
    assert path.take(frames[0][:99], at) == frames[0][:99]
    assert path.take(b"", at) == b""
    clock.awaited = True
    assert path.take(text(media("60")), at) == text(media("60"))
    assert [frame[1:] for frame in lane.frames] == [(20, at.unix_us), (40, at.unix_us)]
    assert clock.received_us == 50_000 and dropped == []
