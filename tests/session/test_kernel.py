"""The compiled way of the caller's frames does what the Python way does."""

from __future__ import annotations

import asyncio
import base64
import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from picows import WSMsgType, WSTransport
from prometheus_client import CollectorRegistry, generate_latest

from asheard.v1 import session_service_pb2
from runtime.facts import FactWriter
from session.agent import parse_agent
from session.call import Call, CallSettings, Outlet
from session.kernel import kernel
from session.link import SessionService, _Link
from session.metrics import SessionMetrics
from session.realtime.connection import STALLED_BYTES
from session.realtime.input_clock import STALL_FILL_MS
from session.realtime.picows_connection import STALL_CHECK_EVERY, PicowsConnection, connect_picows
from tests.kernels import needs
from tests.session.ends import FRAME, endpoint

pytestmark = needs("session")

AGENT = parse_agent("name: x\ninstructions: Be brief.\n", name="x")
NOW_UNIX_US = 1_750_000_000_000_000
CALLS = 4
UNKNOWN_HANDLE = 77


class Transport:
    """Where a call's messages go, and how that goes wrong.

    Args:
        faults: By the number of a message: ``raise``, ``close`` or ``stall``.
    """

    def __init__(self, faults: dict[int, str]) -> None:
        self._faults = faults
        self._n_sent = 0
        self.connection: PicowsConnection | None = None
        self.sent: list[bytes] = []
        self.buffered = 0
        self.dropped = 0
        self.close_handshake = None
        self.underlying_transport = SimpleNamespace(get_write_buffer_size=lambda: self.buffered)

    def send(self, kind: WSMsgType, message: bytes) -> None:
        assert kind is WSMsgType.TEXT
        self.sent.append(message)
        self._n_sent += 1
        match self._faults.get(self._n_sent):
            case "raise":
                raise OSError(f"message {self._n_sent}")
            case "close" if self.connection is not None:
                self.connection.on_ws_disconnected(cast(WSTransport, self))
            case "stall":
                self.buffered = STALLED_BYTES + 1

    def disconnect(self, *, graceful: bool) -> None:
        assert not graceful
        self.dropped += 1


class OtherConnection:
    """One that has no transport of its own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, data: bytes) -> None:
        self._transport.send(WSMsgType.TEXT, data)


class Worker:
    """Some calls and their link, without a socket.

    Args:
        compiled: Which way frames go.
        faults: Of each call's transport.
    """

    def __init__(self, *, compiled: bool, faults: Sequence[dict[int, str]] = ()) -> None:
        self.registry = CollectorRegistry()
        self.metrics = SessionMetrics(self.registry)
        self.link = _Link(cast(SessionService, None))
        if not compiled:
            self.link._append = None
        unused = cast(Any, None)
        call_settings = CallSettings(
            agent=AGENT, model="m", realtime_url="", key=None, align="off", connect=unused,
            tools=unused, refine=unused, metrics=self.metrics,
        )  # fmt: skip
        self.calls: list[Call] = []
        self.transports: list[Transport] = []
        for number in range(CALLS):
            writer = cast(FactWriter, SimpleNamespace(write=None, writer="session/x"))
            call = Call(f"CA{number}", call_settings, cast(Outlet, None), writer)
            self.transports.append(Transport(faults[number] if faults else {}))
            self.calls.append(call)
            self.link._calls[number + 1] = call

    def configure(self, number: int, *, other: bool = False) -> None:
        """Give a call its socket, and let its audio go."""
        call, transport = self.calls[number], self.transports[number]
        if call._kept is None:
            return
        if other:
            call._connection = cast(Any, OtherConnection(transport))
        else:
            transport.connection = call._connection = PicowsConnection()
            call._connection.on_ws_connected(cast(WSTransport, transport))
        try:
            call._begin_audio(call._kept)
        except OSError as error:  # comes out of `run`, which is not running here
            call.crash(error)

    def receive(self, frames: Sequence[Frame]) -> None:
        """A message from the gateway."""
        self.link._receive(
            session_service_pb2.LinkRequest(
                caller_audio=session_service_pb2.CallerAudio(
                    call=[frame.handle for frame in frames],
                    payload=[frame.payload for frame in frames],
                    media_ms=[frame.media_ms for frame in frames],
                    received_unix_us=[frame.received_unix_us for frame in frames],
                )
            )
        )

    def outcome(self) -> list[Any]:
        """All that can be seen of what happened."""
        scraped = generate_latest(self.registry).decode().splitlines()
        seen: list[Any] = [line for line in scraped if "_created" not in line]
        for call, transport in zip(self.calls, self.transports, strict=True):
            clock = call._clock
            end_ms = clock.appended_ms + 40
            places = range(0, end_ms, max(1, end_ms // 60))
            seen.append(
                (
                    transport.sent,
                    transport.dropped,
                    clock.appended_ms,
                    clock.filled_ms,
                    clock.next_timer(),
                    [clock.media_at(ms) for ms in places],
                    [clock.received_at(ms) for ms in places],
                    repr(call._crashed.exception()) if call._crashed.done() else None,
                    None if call._kept is None else list(call._kept),
                )
            )
        return seen


@dataclass(frozen=True)
class Frame:
    """A frame as it comes from the gateway."""

    handle: int
    payload: bytes
    media_ms: int
    received_unix_us: int


@dataclass
class Script:
    """What happens to a worker."""

    faults: list[dict[int, str]]
    steps: list[tuple[str, int, list[Frame]]] = field(default_factory=list)
    """``frames``, or what else happens to the call of the number."""


def regular(number: int, n: int, *, begin_ms: int = 0, payload: bytes = FRAME) -> list[Frame]:
    """Frames of a call's, one behind the other."""
    return [Frame(number + 1, payload, begin_ms + 20 * i, NOW_UNIX_US - 1000 * i) for i in range(n)]


MALFORMED = (
    b"A", b"AAA", b"AA=A", b"A===", b"====", b"=AAA", b"AA\nA", b"AA==AAAA", b'"}{"', b"AA-_",
    b"AA== ", b"\xff\xfe\xfd\xfc",
)  # fmt: skip
PADDED = (b"", b"AA==", b"AAA=", b"AB==", b"AAB=", b"//==", b"//8=", b"+/+/")

payloads = st.one_of(
    st.just(FRAME),
    st.just(FRAME),
    st.binary(max_size=200).map(base64.b64encode),
    st.sampled_from(PADDED + MALFORMED),
    st.binary(max_size=9),
)
paces_ms = st.one_of(st.integers(-5, 15), st.integers(0, 45), st.integers(-3_000, 25_000))
received = st.one_of(
    st.just(NOW_UNIX_US),
    st.integers(NOW_UNIX_US - 7_000_000, NOW_UNIX_US + 10_000),
    st.sampled_from([0, -1, 2**60, -(2**63), 2**63 - 1, NOW_UNIX_US - 2**53 - 1]),
)
far_ms = st.sampled_from([2**61, 2**62, 2**63 - 1, -(2**63), -(2**61)])
events = st.sampled_from(["configure", "configure other", "close", "stall", "pause", "pause"])


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """A worker's life: runs of regular frames with odd ones between them."""
    fault = st.sampled_from(["raise", "close", "stall"])
    faults = st.dictionaries(st.integers(1, 80), fault, max_size=2)
    script = Script([draw(faults) for _ in range(CALLS)])
    script.steps += [
        ("configure", number, []) for number in range(CALLS) if draw(st.integers(0, 3))
    ]
    media_ms = [draw(st.integers(0, 500)) for _ in range(CALLS)]
    for _ in range(draw(st.integers(1, 10))):
        runs: list[list[Frame]] = []
        for number in draw(st.lists(st.integers(0, CALLS - 1), max_size=6)):
            n = draw(st.integers(0, 20))
            runs.append(regular(number, n, begin_ms=media_ms[number]))
            media_ms[number] += 20 * n
            if draw(st.booleans()):
                at_ms = media_ms[number] + draw(paces_ms)
                media_ms[number] = at_ms + 20
                if not draw(st.integers(0, 10)):
                    at_ms = draw(far_ms)
                handle = draw(st.sampled_from([number + 1] * 5 + [UNKNOWN_HANDLE]))
                runs[-1].append(Frame(handle, draw(payloads), at_ms, draw(received)))
        if draw(st.booleans()):
            turns = [list(turn) for turn in zip_longest(*runs)]
            runs = [[frame for frame in turn if frame is not None] for turn in turns]
        script.steps.append(("frames", 0, [frame for run in runs for frame in run]))
        if draw(st.booleans()):
            event, number = draw(events), draw(st.integers(0, CALLS - 1))
            script.steps.append((event, number, []))
            media_ms[number] += STALL_FILL_MS if event == "pause" else 0
    return script


class Time:
    """The module, standing still between two steps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 1000 * NOW_UNIX_US


async def live(script: Script, *, compiled: bool) -> list[Any]:
    """Let a script happen."""
    time = Time()
    with patch("session.call.time", time), patch("session.link.time", time):
        worker = Worker(compiled=compiled, faults=script.faults)
        for kind, number, frames in script.steps:
            time.now += 0.02
            call = worker.calls[number]
            match kind:
                case "frames":
                    worker.receive(frames)
                case "configure" | "configure other":
                    worker.configure(number, other=kind == "configure other")
                case "close" if isinstance(call._connection, PicowsConnection):
                    call._connection.on_ws_disconnected(
                        cast(WSTransport, worker.transports[number])
                    )
                case "stall":
                    worker.transports[number].buffered = STALLED_BYTES + 1
                case "pause":  # of the media, in speech
                    time.now += 1.0
                    call._clock.speech(True)
                    call._clock.stalled(now=time.now)
        return worker.outcome()


@given(scripts())
@settings(max_examples=150, deadline=None)
def test_both_ways_do_the_same(script: Script) -> None:
    assert uvloop.run(live(script, compiled=True)) == uvloop.run(live(script, compiled=False))


def configured(*, faults: Sequence[dict[int, str]] = ()) -> Worker:
    """A worker whose frames go the compiled way, all calls of it configured."""
    worker = Worker(compiled=True, faults=faults)
    for number in range(CALLS):
        worker.configure(number)
    return worker


async def test_both_ways_do_the_same_for_a_minute_with_every_last_quartet_of_base64() -> None:
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_ \n\x80\xc1"
    endings = [bytes([a, b, c, d]) for a in letters for b in letters for c, d in (b"==", b"A=")]
    frames = [
        Frame(1, FRAME[:-4] + ending, 20 * i, NOW_UNIX_US - i) for i, ending in enumerate(endings)
    ]
    script = Script([{}] * CALLS, [("configure", 0, []), ("frames", 0, regular(0, 3000))])
    script.steps += [("configure", 1, []), ("frames", 0, frames)]
    assert await live(script, compiled=True) == await live(script, compiled=False)


async def test_a_regular_frame_takes_the_compiled_way_and_any_other_does_not() -> None:
    worker = configured()
    worker.receive(regular(0, 1))  # the first of a call begins a segment
    with patch.object(Call, "receive_audio") as in_python:
        worker.receive(regular(0, 9, begin_ms=20))
        in_python.assert_not_called()
        gap = Frame(1, FRAME, 1000, NOW_UNIX_US)
        worker.receive([*regular(0, 1, begin_ms=200), gap, *regular(0, 1, begin_ms=220)])
        in_python.assert_called_once()
        assert in_python.call_args.args[:3] == (FRAME, 1000, NOW_UNIX_US)
    assert len(worker.transports[0].sent) == 12


async def test_a_fault_in_sending_ends_that_call_alone() -> None:
    worker = configured(faults=[{2: "raise"}, {}, {}, {}])
    worker.receive([f for pair in zip(regular(0, 3), regular(1, 3), strict=True) for f in pair])
    error = worker.calls[0]._crashed.exception()
    assert isinstance(error, OSError)
    assert error.__traceback__ is not None, "the log says where it was raised"
    assert not worker.calls[1]._crashed.done()
    assert len(worker.transports[1].sent) == 3


async def test_a_second_fault_ends_that_call_alone_without_its_help() -> None:
    worker = configured(faults=[{2: "raise"}, {}, {}, {}])
    worker.receive([*regular(0, 1), *regular(1, 1)])
    pairs = zip(regular(0, 4, begin_ms=20), regular(1, 4, begin_ms=20), strict=True)
    frames = [frame for pair in pairs for frame in pair]
    frames.insert(5, Frame(3, b"A" * 70_000, 0, NOW_UNIX_US))  # not regular
    dropped: list[tuple[int, str]] = []
    with (
        patch.object(Call, "crash", side_effect=RuntimeError("crash")),
        patch.object(Call, "receive_audio", side_effect=asyncio.CancelledError("no barrier")),
        patch.object(_Link, "drop", lambda _, handle, error: dropped.append((handle, str(error)))),
    ):
        worker.receive(frames)
    assert dropped == [(1, "crash"), (3, "no barrier")]
    assert len(worker.transports[1].sent) == 5, "all frames of the neighbour"


async def test_what_is_no_fault_of_a_call_is_raised() -> None:
    worker = configured()
    worker.receive(regular(0, 1))
    with (
        patch.object(worker.transports[0], "send", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        worker.receive(regular(0, 1, begin_ms=20))
    assert not worker.calls[0]._crashed.done()


async def test_columns_of_different_lengths_are_refused() -> None:
    append = kernel()
    assert append is not None
    with pytest.raises(ValueError, match="of one length"):
        append({}, [1, 2], [FRAME], [0], [0], 0, 0.0)
    with pytest.raises(TypeError, match="four columns"):
        append({}, [1], [FRAME], [0], [0], 0, 0)


async def test_a_socket_that_takes_nothing_is_looked_at() -> None:
    worker = configured()
    worker.transports[0].buffered = STALLED_BYTES + 1
    worker.receive(regular(0, STALL_CHECK_EVERY - 1))
    dropped = [worker.transports[0].dropped]
    worker.receive(regular(0, 1, begin_ms=20 * (STALL_CHECK_EVERY - 1)))
    dropped.append(worker.transports[0].dropped)
    assert dropped == [0, 1]


async def test_a_real_socket_takes_the_compiled_way_from_its_configuration_to_its_end() -> None:
    async with endpoint() as end:
        worker = Worker(compiled=True)
        call = worker.calls[0]
        call._connection = connection = await connect_picows(end.url, model="m", key=None)
        model = await end.session()
        worker.receive(regular(0, 5))
        assert call._kept is not None, "it is not configured"
        assert len(call._kept) == 5
        call._begin_audio(call._kept)
        with patch.object(Call, "receive_audio") as in_python:
            worker.receive(regular(0, 45, begin_ms=100))
            in_python.assert_not_called()
            await model.wait_for("input_audio_buffer.append", 50)
            assert model.caller_audio == 50 * base64.b64decode(FRAME)
            await connection.close()
            worker.receive(regular(0, 1, begin_ms=1000))
            in_python.assert_called_once()


async def test_it_keeps_nothing() -> None:
    worker = configured(faults=[{}, {}, {}, dict.fromkeys(range(0, 200000, 50), "raise")])
    payload = base64.b64encode(b"\x55" * 160)

    def minutes(first: int, n: int) -> None:
        for start in range(first, first + n, 500):
            for number in range(CALLS):
                worker.receive(regular(number, 500, begin_ms=20 * start, payload=payload))
                worker.receive([Frame(number + 1, b"A", 0, 0), Frame(UNKNOWN_HANDLE, b"", 0, 0)])
                worker.transports[number].sent.clear()

    minutes(0, 2_000)
    shared = (payload, None, False, FRAME)
    gc.collect()  # what other tests left behind is not to be counted
    before = [sys.getrefcount(thing) for thing in shared]
    blocks = sys.getallocatedblocks()
    minutes(2_000, 50_000)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 200, "objects are left over"
    assert isinstance(worker.calls[3]._crashed.exception(), OSError)
    after = [sys.getrefcount(thing) for thing in shared]
    assert all(abs(a - b) < 50 for a, b in zip(after, before, strict=True)), (before, after)
