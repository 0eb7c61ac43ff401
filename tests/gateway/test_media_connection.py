"""A media stream's WebSocket: the same messages however bytes are cut, and an end to all."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from asheard.v1 import fact_pb2
from gateway import media_sink
from gateway.twilio.messages import MAX_MESSAGE_BYTES
from gateway.websocket_protocol import Kind, handshake
from tests.examples import examples
from tests.gateway.conftest import World
from tests.gateway.media_rig import Rig
from tests.gateway.peers import CALL_SID, RawEnd, TwilioEnd, until
from tests.gateway.wire import (
    BINARY,
    CLOSE,
    CONTINUED,
    MASK,
    PIECE,
    PIECE_OF_TEXT,
    PING,
    PONG,
    TEXT,
    frame,
    media,
    started,
    text,
)

# -- what comes ------------------------------------------------------------------------------------

_CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([0, 125, 126, 127, 65_535]).map(bytes),
    st.sampled_from([b'{"event":"connected"}', b'{"event":"new"}', b"{}"]),
)
_PIECES = st.lists(st.binary(max_size=80), min_size=2, max_size=4).map(
    lambda pieces: (
        frame(PIECE_OF_TEXT, pieces[0])
        + b"".join(frame(PIECE, piece) + frame(PING, piece) for piece in pieces[1:-1])
        + frame(CONTINUED, pieces[-1])
    )
)
_FRAMES = st.lists(
    st.one_of(
        _CONTENTS.map(lambda content: frame(TEXT, content)),
        _CONTENTS.map(lambda content: frame(TEXT, content)),
        st.binary(max_size=125).map(lambda content: frame(PING, content)),
        st.binary(max_size=125).map(lambda content: frame(PONG, content)),
        st.binary(max_size=20).map(lambda content: frame(BINARY, content)),
        _PIECES,
        st.sampled_from(
            [
                frame(CLOSE, b""), frame(CLOSE, b"\x03\xe8"), frame(CLOSE, b"\x03"),
                frame(CONTINUED, b"of nothing"), frame(0xC1, b"reserved bit"), frame(0x83, b""),
                b"\x81\x05hello", frame(TEXT, bytes(MAX_MESSAGE_BYTES + 1)), b"\x81\xff" + b"\x7f" * 8,
                frame(PIECE_OF_TEXT, bytes(60_000)) + frame(CONTINUED, bytes(6_000)),
            ]
        ),
        st.binary(min_size=1, max_size=30),
    ),
    max_size=8,
)  # fmt: skip


def by_the_library(wire: bytes) -> tuple[list[bytes], list[str]]:
    """Texts, and all that is no text, as ``websockets`` reads them alone."""
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE_BYTES)
    protocol.receive_data(wire)
    texts: list[bytes] = []
    others: list[str] = []
    pieces: list[bytes] = []
    kind = Opcode.TEXT
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY):
            kind = event.opcode
        if event.opcode in (Opcode.TEXT, Opcode.CONT) and kind is Opcode.TEXT:
            pieces.append(bytes(event.data))
            if event.fin:
                texts.append(b"".join(pieces))
                pieces.clear()
        elif event.opcode is Opcode.CLOSE:
            others.append("close")
        elif event.opcode is Opcode.PING:
            others.append(f"ping {bytes(event.data).hex()}")
        elif event.opcode is Opcode.BINARY:
            others.append("binary")
    if protocol.parser_exc is not None and protocol.close_sent is not None:
        others.append(f"fault {protocol.close_sent.code}")
    return texts, others


def by_a_connection(wire: bytes, *cuts: int) -> tuple[list[bytes], list[str]]:
    """The same as a media connection reads them, in pieces of these lengths."""

    async def run() -> tuple[list[bytes], list[str]]:
        rig = Rig()
        rig.take(wire, *cuts)
        others = []
        for received in rig.connection.others:
            match received.kind:
                case Kind.PING:
                    assert received.content[0] == PONG, "what answers it"
                    others.append(f"ping {received.content[2:].hex()}")
                case Kind.FAULT:
                    others.append(f"fault {received.close_code}")
                case Kind.CLOSE | Kind.BINARY:
                    others.append(received.kind.value)
        assert rig.seat.left == (1 if rig.connection.others else rig.seat.left)
        return rig.connection.texts, others

    with capture_logs():
        return asyncio.run(run())


@settings(max_examples=examples(300), deadline=None)
@given(_FRAMES, st.lists(st.integers(1, 400), max_size=20))
def test_messages_are_those_of_the_library_however_data_are_cut(
    frames: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(frames)
    assert by_a_connection(wire, *cuts) == by_the_library(wire)


async def test_plain_text_is_read_in_turns_and_all_else_by_the_event_loop() -> None:
    rig = Rig()
    rig.start()
    rig.take(text(media("40"))[:-1])
    assert rig.seat.left == 0
    rig.take(text(media("40"))[-1:] + frame(PING, b"?") + text(media("60")))
    assert rig.seat.left == 1
    rig.take(frame(PING, b"!"))
    assert rig.seat.left == 1
    assert rig.sink.written == [b"\x8a\x01?", b"\x8a\x01!"]
    assert [timestamp_ms for _, timestamp_ms, _ in rig.lane.frames] == [0, 20, 40, 60]


# -- how it ends -----------------------------------------------------------------------------------


async def test_a_close_without_stop_is_answered_and_drops_the_call() -> None:
    rig = Rig()
    rig.start()
    rig.take(frame(CLOSE, b"\x03\xe9") + text(media("40")))
    assert rig.lane.outcome == fact_pb2.CALL_OUTCOME_DROPPED
    assert rig.sink.closed == [(1000, "")]
    assert rig.sink.over == 1
    assert len(rig.lane.frames) == 2


async def test_what_comes_after_our_close_is_read_and_thrown_away() -> None:
    rig = Rig()
    rig.start()
    rig.take(text({"event": "nonsense"}) + frame(TEXT, b"no JSON") + text(media("40")))
    assert [code for code, _ in rig.sink.closed] == [1007]
    rig.take(text(media("60")) + frame(BINARY, b"x") + frame(CLOSE, b"\x03\xef"))
    assert len(rig.sink.closed) == 1, "said once"
    assert rig.sink.over == 1, "the peer's answer ends the connection"
    assert len(rig.lane.frames) == 2
    assert len(rig.calls) == 1
    rig.connection.disconnected()
    rig.connection.disconnected()
    assert len(rig.calls) == 0


@pytest.mark.parametrize("fault", [ZeroDivisionError("ours"), asyncio.CancelledError()])
async def test_a_fault_of_ours_on_the_path_of_frames_ends_the_call(fault: BaseException) -> None:
    rig = Rig()
    rig.start()
    rig.lane.fault = fault
    with capture_logs() as lines:
        rig.take(text(media("40")) + text(media("60")) + frame(CLOSE, b""))
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "fault while handling a media stream"
    ]
    assert rig.lane.outcome == fact_pb2.CALL_OUTCOME_DROPPED
    assert rig.sink.closed == [(1011, "internal error")]
    assert rig.sink.over == 1, "what came behind it was read to its end"


async def test_a_fault_in_the_end_as_well_comes_out_for_the_socket_to_be_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    rig.start()
    rig.lane.fault = ZeroDivisionError("ours")

    def fail() -> None:
        raise ZeroDivisionError("in the clean-up too")

    monkeypatch.setattr(rig.connection, "fail", fail)
    with capture_logs(), pytest.raises(ZeroDivisionError, match="clean-up"):
        rig.take(text(media("40")))


async def test_a_call_that_has_ended_gets_no_frames_by_any_way() -> None:
    rig = Rig()
    rig.start()
    rig.take(text({"event": "stop", "streamSid": "MZ0123456789abcdef0123456789abcdef"}))
    assert rig.lane.outcome == fact_pb2.CALL_OUTCOME_COMPLETED
    rig.take(text(media("40")) + text(media("60")))
    assert len(rig.lane.frames) == 2


# -- the handshake ---------------------------------------------------------------------------------

GOOD = {
    "Host": "x",
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The key is the one of RFC 6455, 1.3."""


def test_a_good_handshake_is_answered_without_extensions() -> None:
    offered = GOOD | {"Sec-WebSocket-Extensions": "permessage-deflate", "X-Odd": "\udcff"}
    status, answer = handshake("GET", offered.items())
    assert status == 101
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert rest == b""
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert not [line for line in lines if "xtensions" in line]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": "close"}, 426),
        ({"Connection": None}, 426),
        ({"Connection": ";;"}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA\udcff="}, 400),
        ({"Sec-WebSocket-Version": "8"}, 400),
    ],
)
def test_what_is_no_handshake_is_told_so(change: dict[str, str | None], status: int) -> None:
    headers = [(name, value) for name, value in (GOOD | change).items() if value is not None]
    assert handshake("GET", headers) == (status, b"")
    assert handshake("POST", GOOD.items())[0] == 400


# -- over a real socket ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/twilio/media", "/twilio/media/"])
async def test_a_stream_in_single_bytes_and_pieces_is_a_call_like_any_other(
    running: World, path: str
) -> None:
    raw = await RawEnd.connect(running.gateway.port, path=path)
    for byte in text({"event": "connected"}) + started(CALL_SID):
        raw.writer.write(bytes((byte,)))
        await raw.writer.drain()
    await until(lambda: running.worker.opened, "the call")
    whole = text(media("20")) + text(media("40"))
    raw.writer.write(whole[:300])
    await asyncio.sleep(0.02)
    raw.writer.write(whole[300:])
    await until(lambda: len(running.worker.audio.get(1, ())) == 2, "its frames")
    half = len(media_json := b'{"event":"mark","streamSid":"x"}') // 2
    raw.writer.write(frame(PIECE_OF_TEXT, media_json[:half]) + frame(CONTINUED, media_json[half:]))
    rest = await raw.rest()
    assert rest[0] == CLOSE and int.from_bytes(rest[2:4], "big") == 1007
    await running.ended()
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_PROTOCOL_ERROR
    raw.writer.close()


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(0xC1, b"reserved bit"), 1002),
        (frame(0x83, b"reserved kind"), 1002),
        (b"\x81\x05hello", 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (b"\x81\xff" + (1 << 40).to_bytes(8, "big") + MASK, 1009),
        (frame(PIECE_OF_TEXT, bytes(60_000)) + frame(CONTINUED, bytes(60_000)), 1009),
        (frame(CLOSE, b"\x03\xe8"), 1000),
        (frame(CLOSE, b""), 1000),
    ],
)
async def test_a_frame_that_cannot_be_taken_ends_its_stream_with_the_code_that_says_why(
    running: World, monkeypatch: pytest.MonkeyPatch, wire: bytes, code: int
) -> None:
    monkeypatch.setattr(media_sink, "CLOSE_WAIT_S", 0.2)  # it does not answer
    neighbour = await running.call()
    raw = await RawEnd.connect(running.gateway.port)
    with capture_logs() as lines:
        raw.writer.write(wire + b"and more" * 10)
        rest = await raw.rest()
    assert rest[0] == CLOSE and int.from_bytes(rest[2:4], "big") == code
    faults = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert faults == ([] if code == 1000 else ["media stream broke its protocol"])
    await _heard(running, neighbour)
    raw.writer.close()


async def _heard(running: World, end: TwilioEnd) -> None:
    before = len(running.worker.audio.get(1, ()))
    await end.media()
    await until(lambda: len(running.worker.audio.get(1, ())) == before + 1, "the neighbour")
