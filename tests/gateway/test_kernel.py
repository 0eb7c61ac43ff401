"""The compiled way for the caller's frames and the Python way do the same, whatever comes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import uvloop
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from asheard.v1 import session_service_pb2
from gateway import turns
from gateway.call import CallServices
from gateway.instant import now
from gateway.kernel import kernel
from gateway.link import BATCH_FRAMES, Lane, LaneListener, Link
from gateway.media_socket import MediaSocket
from gateway.metrics import GatewayMetrics
from gateway.parser import DirectParser
from gateway.placement import WorkerLoad
from gateway.playout import clock
from gateway.registry import Registry
from gateway.turns import ReadingTurns, ReadReady, Seat, read_ready
from runtime.facts import FactOutbox
from tests.gateway.test_parser import MASK, PING, TEXT, frame
from tests.kernels import ROOT, needs

STREAM = "MZ0123456789abcdef0123456789abcdef"
CALLS = 2

FRAME = base64.b64encode(bytes(range(160))).decode()

compiled = kernel()
pytestmark = needs("gateway")


@pytest.fixture(autouse=True, scope="module")
def any_pace() -> Iterator[None]:
    """What the clock believes of a timestamp must not depend on how slow this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "STALL_US", 10**12)
        patch.setattr(clock, "AHEAD_TOLERANCE_US", 5_000_000)  # no sum of the steps but the last
        yield


class Twilio:
    """Our end of Twilio's socket: what is written to it, and the transport that a seat reads."""

    def __init__(self) -> None:
        self.ours, self.peer = socket.socketpair()
        self.ours.setblocking(False)
        self.written: list[bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.closing = False
        self.aborted = 0
        self.resumed = 0
        self.silent = False

    def hang_up(self) -> None:
        """The peer sends nothing more."""
        self.peer.shutdown(socket.SHUT_WR)
        self.silent = True

    def write(self, frames: bytes) -> None:
        self.written.append(frames)

    def unsent_bytes(self) -> int:
        return 0

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    def abort(self) -> None:
        self.aborted += 1
        self.closing = True

    # -- the part of asyncio's transport that seats know

    def get_extra_info(self, name: str) -> object:
        assert name == "socket"
        return self.ours

    def is_closing(self) -> bool:
        return self.closing

    def resume_reading(self) -> None:
        self.resumed += 1


class Forgetful:
    """In place of the turns."""

    def __init__(self) -> None:
        self.forgotten = 0

    def forget(self, seat: Seat) -> None:
        self.forgotten += 1


@dataclass
class Seen:
    """All that a gateway's neighbours see, but for times."""

    batches: list[list[tuple[int, bytes, int]]] = field(default_factory=list)
    control: list[str] = field(default_factory=list)
    flushes: int = 0


class Gateway:
    """Calls of a gateway, read one way; the link leads nowhere and is emptied by hand."""

    def __init__(self, read: ReadReady) -> None:
        self.read = read
        self.registry = CollectorRegistry()
        self.metrics = GatewayMetrics(self.registry)
        self.link = Link("nowhere:1", self.metrics, lambda lane, reason: None)
        self.link.load = WorkerLoad(active_calls=0, max_calls=9)
        self.seen = Seen()
        begun = self.link.batch.begun

        def count_flush() -> None:
            self.seen.flushes += 1
            begun()

        self.link.batch.begun = count_flush
        self.seats: dict[int, Seat] = {}
        self.lanes: list[Lane] = []
        self.twilio: list[Twilio] = []
        self.parsers: list[DirectParser] = []
        self.queues: list[WebSocketDataQueue] = []
        self.sockets: list[MediaSocket] = []
        self.turns = Forgetful()
        services = CallServices(self, FactOutbox("nowhere:1", self.registry), self.metrics)
        for _ in range(CALLS):
            twilio = Twilio()
            media_socket = MediaSocket(twilio, services, Registry(), None)
            loop = asyncio.get_running_loop()
            queue = WebSocketDataQueue(BaseProtocol(loop), 1 << 30, loop=loop)
            parser = DirectParser(queue, 1 << 18)
            parser.owner = media_socket
            parser.seat = seat = Seat(
                cast(ReadingTurns, self.turns), cast(asyncio.Transport, twilio), parser.feed_data
            )
            self.seats[seat.fd] = seat
            self.twilio.append(twilio)
            self.parsers.append(parser)
            self.queues.append(queue)
            self.sockets.append(media_socket)

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        lane = Lane(listener, call_sid, stream_sid)
        self.lanes.append(lane)
        self.link.open(lane)
        return lane

    def announce_stopped(self, call_sid: str, stream_sid: str) -> None:
        raise AssertionError("no callback comes here")

    # -- what happens --

    def open(self) -> None:
        """Bring all calls to their ordinary state, in which frames are on the quick way."""
        for place in range(CALLS):
            self.send(text({"event": "connected"}) + started(place) + text(media("0")), place)
        self.turn()
        self.accept()
        self.flush()
        for place in range(CALLS):
            self.send(text(media("20")), place)
        self.turn()
        assert [lane.batch is self.link.batch for lane in self.lanes] == [True] * CALLS
        assert [seat.quick is not None for seat in self.seats.values()] == [True] * CALLS

    def send(self, wire: bytes, place: int = 0) -> None:
        if not self.twilio[place].silent:
            self.twilio[place].peer.sendall(wire)

    def turn(self) -> None:
        """Read until nothing is left."""
        for _ in range(100):
            self.read([(fd, 1) for fd in self.seats], self.seats)

    def accept(self) -> None:
        for lane in self.lanes:
            if not lane.accepted and lane.link is not None:
                control = session_service_pb2.SessionControl(
                    call=lane.handle,
                    call_accepted=session_service_pb2.CallAccepted(session_writer="session/1"),
                )
                self.link._control_for(lane, control, now())

    def flush(self) -> None:
        while (request := self.link._next_message()) is not None:
            audio = request.caller_audio
            assert len(audio.call) == len(audio.received_unix_us)
            self.seen.batches.append(
                list(zip(audio.call, audio.payload, audio.media_ms, strict=True))
            )
            self.seen.control += map(without_times, request.control)

    def is_over(self, place: int) -> bool:
        """Whether a call has ended by what came until now."""
        self.turn()
        return self.lanes[place].outcome is not None

    def lose(self) -> None:
        self.link._lose("test")
        self.link.load = WorkerLoad(active_calls=0, max_calls=9)

    # -- what is seen --

    def answer(self) -> dict[str, object]:
        samples = {
            (sample.name, str(sample.labels)): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if not sample.name.endswith(("_created", "_pending_bytes"))  # times have any length
            and "seconds" not in sample.name
        }
        clocks = []
        for media_socket in self.sockets:
            call = media_socket._call
            if call is not None:
                its = call.quick.clock
                gaps = [(gap.before_us, gap.after_us) for gap in its._gaps.values()]
                clocks.append((its.newest_ms, its.reading_us, its.frame_bytes, gaps))
        return {
            "batches": self.seen.batches,
            "control": self.seen.control,
            "flushes": self.seen.flushes,
            "waiting": [[waiting[:2] for waiting in lane.audio] for lane in self.lanes],
            "written": [twilio.written for twilio in self.twilio],
            "closed": [twilio.closed for twilio in self.twilio],
            "aborted": [twilio.aborted for twilio in self.twilio],
            "clocks": clocks,
            "rest": [parser._rest for parser in self.parsers],
            "general": [
                [(m.type, bytes(m.data or b"")) for m, _ in queue._buffer] for queue in self.queues
            ],
            "ended": (self.turns.forgotten, [twilio.resumed for twilio in self.twilio]),
            "metrics": samples,
        }

    def close(self) -> None:
        for twilio in self.twilio:
            twilio.ours.close()
            twilio.peer.close()


def without_times(control: session_service_pb2.GatewayControl) -> str:
    """What control says but for positions, which are as late as this machine is slow."""
    if not control.HasField("positions_fixed"):
        return str(control)
    fixed = control.positions_fixed
    items = [position.item_id for position in fixed.positions]
    return f"call: {control.call}, positions of {items}, {fixed.interrupt_id} {fixed.cause}"


def text(message: object, **style: Any) -> bytes:
    return frame(TEXT, json.dumps(message, **(style or {"separators": (",", ":")})).encode())


def started(number: int = 1) -> bytes:
    details = {"callSid": f"CA{number}", "streamSid": STREAM, "accountSid": "AC1"}
    return text({"event": "start", "streamSid": STREAM, "start": details})


def media(timestamp_ms: object, payload: object = FRAME, /, **changes: object) -> dict[str, object]:
    details = {"track": "inbound", "chunk": "1", "timestamp": timestamp_ms, "payload": payload}
    return {
        "event": "media",
        "sequenceNumber": "2",
        "media": {k: changes.get(k, v) for k, v in details.items() if changes.get(k, v) != "none"},
        "streamSid": changes.get("streamSid", STREAM),
        **{k: v for k, v in changes.items() if k not in (*details, "streamSid")},
    }


Event = tuple[str, Any]

STEPS = [20, 40, 13, 29, 30, 31, 10, 9, 1, 0, -20, 90, 60_000]
"""From one timestamp to the next, in ms."""
PAYLOADS = [
    FRAME, "", "====", "AA==", "AAA=", "AB==", "A===", "=AAA", "AA=A", "AAAA", "AAAAA", "AA AA",
    "AA-_", "\u00e9===", FRAME[:-1], FRAME[:-4], FRAME + FRAME, "+" + FRAME[1:], "." + FRAME[1:],
    "[" + FRAME[1:], "`" + FRAME[1:], "@" + FRAME[1:], "\\" + FRAME[1:], '"' + FRAME[1:],
    "\u0000" + FRAME[1:], "\u007f" + FRAME[1:], FRAME[:-2] + "A=", FRAME[:-2] + "AA", None, 7,
]  # fmt: skip
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
_ODD = st.sampled_from(
    [
        "accept",
        "read",
        "speak",
        "interrupt",
        "echo",
        "lose",
        "ping",
        "key",
        "binary",
        "unmasked",
        "fragment",
        "nonsense",
        "stop",
        "half",
        "end",
        "number",
    ]
)
_EVENTS: st.SearchStrategy[list[tuple[int, Event]]] = st.lists(
    st.tuples(
        st.integers(0, CALLS - 1),
        st.one_of(
            st.tuples(st.just("regular"), st.integers(1, 12)),
            st.tuples(st.just("regular"), st.integers(1, 3)),
            st.just(("flush", None)),
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
            st.tuples(_ODD, st.none()),
        ),
    ),
    max_size=25,
)


def play(read: ReadReady, events: list[tuple[int, Event]]) -> dict[str, object]:
    """What is seen of calls to which all this happens."""

    async def run() -> dict[str, object]:
        gateway = Gateway(read)
        gateway.open()
        clocks_ms = [40] * CALLS
        try:
            for place, (kind, detail) in events:
                happen(gateway, place, kind, detail, clocks_ms)
            gateway.turn()
            gateway.flush()
            return gateway.answer()
        finally:
            gateway.close()

    return uvloop.run(run())


def happen(gateway: Gateway, place: int, kind: str, detail: Any, clocks_ms: list[int]) -> None:
    """One thing, to one of the calls."""
    lane = gateway.lanes[place]
    timestamp_ms = clocks_ms[place]
    wire, second_half = b"", b""
    match kind:
        case "regular":
            for _ in range(detail):
                wire += text(media(str(clocks_ms[place])))
                clocks_ms[place] += 20
        case "media":
            step, payload, changes, style = detail
            timestamp_ms = max(0, timestamp_ms - 20 + step)
            wire = text(media(str(timestamp_ms), payload, **changes), **style)
            clocks_ms[place] = timestamp_ms + 20
        case "timestamp":
            wire = text(media(detail))
        case "number":
            wire = text(media(timestamp_ms))
            clocks_ms[place] += 20
        case "accept":
            gateway.accept()
        case "flush":
            gateway.flush()
        case "read":
            gateway.turn()
        case "speak" if not gateway.is_over(place):
            lane.listener.agent_audio(f"item{timestamp_ms}", 0, FRAME.encode() * 20, False, now())
        case "interrupt" if not gateway.is_over(place):
            lane.listener.interrupted(
                session_service_pb2.Interrupt(interrupt_id=timestamp_ms), now()
            )
        case "echo":
            wire = b"".join(
                text({"event": "mark", "streamSid": STREAM, "mark": {"name": f"{mark}{n}"}})
                for n in range(9)
                for mark in "spf"
            )
        case "lose":
            gateway.turn()
            gateway.lose()
        case "ping":
            wire = frame(PING, b"are you there?")
        case "key":
            wire = text({"event": "dtmf", "streamSid": STREAM, "dtmf": {"digit": "5"}})
        case "binary":
            wire = frame(0x82, b"x")
        case "raw":
            whole = json.dumps(media(str(timestamp_ms)), separators=(",", ":"))
            wire = frame(TEXT, detail(whole).encode(errors="surrogateescape"))
        case "unmasked":
            content = json.dumps(media(str(timestamp_ms))).encode()
            wire = b"\x81\x7e" + len(content).to_bytes(2, "big") + content
        case "fragment":
            wire = frame(0x01, b'{"event":') + frame(0x80, b'"odd"}')
        case "nonsense":
            wire = frame(TEXT, b'{"event":"media"')
        case "stop":
            wire = text({"event": "stop", "streamSid": STREAM})
        case "half":
            whole_frame = text(media(str(timestamp_ms)))
            clocks_ms[place] += 20
            wire, second_half = whole_frame[:100], whole_frame[100:]
        case "end":
            gateway.turn()
            gateway.twilio[place].hang_up()
    gateway.send(wire, place)
    if second_half:
        gateway.turn()
        gateway.send(second_half, place)


@settings(max_examples=300, deadline=None)
@given(_EVENTS)
def test_both_ways_do_the_same(events: list[tuple[int, Event]]) -> None:
    assert compiled is not None
    assert play(compiled, events) == play(turns.read_ready, events)


ODDITIES: list[Event] = [
    *(("media", (step, FRAME, {}, {})) for step in STEPS),
    *(("media", (20, payload, {}, {})) for payload in PAYLOADS),
    *(("media", (20, FRAME, changes, {})) for changes in CHANGES),
    *(("media", (20, FRAME, {}, style)) for style in STYLES),
    *(("timestamp", timestamp) for timestamp in TIMESTAMPS),
    *(
        ("raw", change)
        for change in (
            lambda text: text + "x",
            lambda text: text + " ",
            lambda text: " " + text,
            lambda text: text[:-1],
            lambda text: text + "}",
            lambda text: text[:-1] + ",}",
            lambda text: text.replace("{", '{"event":"media",', 1),
            lambda text: text.replace("{", '{"event":"mark",', 1),
            lambda text: text.replace("{", '{"streamSid":"MZother",', 1),
            lambda text: text.replace('"track"', '"timestamp":"20","track"'),
            lambda text: text.replace('"track"', '"track":"outbound","track"'),
            lambda text: text.replace('"inbound"', '"inbound"x'),
            lambda text: text.replace("inbound", "in\\u0062ound"),
            lambda text: text.replace("event", "Event"),
            lambda text: text.replace(":", "", 1),
            lambda text: text.replace('"event":"media",', ""),
            lambda text: text.replace('"1"', '"\udcff"'),
            lambda text: text.replace('"1"', '"\n"'),
        )
    ),
]


@pytest.mark.parametrize("odd", ODDITIES, ids=range(len(ODDITIES)))
def test_an_odd_message_among_regular_ones_does_the_same(odd: Event) -> None:
    assert compiled is not None
    events = [(0, ("regular", 2)), (0, odd), (1, ("regular", 1))]
    assert play(compiled, events) == play(turns.read_ready, events)
    events.append((0, ("regular", 2)))
    assert play(compiled, events) == play(turns.read_ready, events)


@pytest.mark.parametrize(
    "heap", [(12, 1), (6, 0, 6, 3), (9, 9, 9, 9), (4, 4) * (BATCH_FRAMES // 7), (4, 4, 9, 0, 4, 4)]
)
def test_a_full_message_and_a_calls_heap_send_frames_into_their_lanes(
    heap: tuple[int, ...],
) -> None:
    assert compiled is not None
    events = [(place % CALLS, ("regular", frames)) for place, frames in enumerate(heap)]
    each_read = [step for event in events for step in (event, (0, ("read", None)))]
    assert play(compiled, each_read) == play(turns.read_ready, each_read)


def on_the_quick_way_only(wire: bytes) -> tuple[int, int]:
    """How many messages came to the link, and how many of them Python had to look at."""

    async def run() -> tuple[int, int]:
        assert compiled is not None
        gateway = Gateway(compiled)
        gateway.open()
        seat = next(iter(gateway.seats.values()))
        given: list[bytes] = []
        seat.take = given.append
        gateway.flush()
        gateway.send(wire)
        gateway.turn()
        passed = len(gateway.link.batch.calls)
        gateway.close()
        return passed, len(given)

    return uvloop.run(run())


def test_twilios_own_messages_go_the_quick_way() -> None:
    # As in Twilio's documentation, and as its servers send them: fields in another order.
    messages = [
        f'{{"event":"media","sequenceNumber":"{n + 3}","media":{{"track":"inbound","chunk":"{n + 2}",'
        f'"timestamp":"{20 * n}","payload":"{FRAME}"}},"streamSid":"{STREAM}"}}'
        for n in range(2, 8)
    ]
    wire = b"".join(frame(TEXT, message.encode()) for message in messages)
    assert on_the_quick_way_only(wire) == (6, 0)


def test_a_call_that_awaits_a_date_is_pythons() -> None:
    async def run() -> None:
        assert compiled is not None
        gateway = Gateway(compiled)
        gateway.open()
        call = gateway.sockets[0]._call
        assert call is not None
        call.agent_audio("item", 0, FRAME.encode() * 20, False, now())
        call.interrupted(session_service_pb2.Interrupt(interrupt_id=1), now())
        fence = json.loads(gateway.twilio[0].written[-1].rpartition(b"{")[2].join([b"{", b""])[:-1])
        gateway.send(text({"event": "mark", "streamSid": STREAM, "mark": fence}))
        gateway.turn()
        awaited = [call.quick.clock.awaited]
        gateway.send(text(media("40")))
        gateway.turn()
        assert [*awaited, call.quick.clock.awaited] == [True, False]
        gateway.flush()
        assert "positions of" in "".join(gateway.seen.control), "the fence was dated"
        gateway.close()

    uvloop.run(run())


@pytest.mark.parametrize("fault", [ZeroDivisionError, asyncio.CancelledError])
@pytest.mark.parametrize("read", [read_ready, compiled], ids=["python", "compiled"])
def test_what_one_socket_raises_ends_it_alone_and_the_others_are_read(
    read: ReadReady, fault: type[BaseException]
) -> None:
    async def run() -> None:
        gateway = Gateway(read)
        gateway.open()
        gateway.flush()
        begun, raised = gateway.link.batch.begun, 0

        def fail_once() -> None:
            nonlocal raised
            raised += 1
            if raised == 1:
                raise fault("ours")
            begun()

        def fail() -> None:
            raise fault("in the clean-up too")

        gateway.link.batch.begun = fail_once
        gateway.sockets[0].fail = fail  # type: ignore[method-assign]
        for place in range(CALLS):
            gateway.send(text(media("40")), place)
        with capture_logs() as lines:
            gateway.turn()
        assert raised >= 1
        assert [twilio.aborted for twilio in gateway.twilio] == [1, 0]
        assert [line["log_level"] for line in lines] == ["error"] * len(lines)
        assert {line["event"] for line in lines} >= {"fault while reading a media stream"}
        gateway.flush()
        assert [row[2] for row in gateway.seen.batches[-1]] == [40], "the neighbour's frame"

        def refuse() -> None:
            raise ZeroDivisionError("thrice")

        gateway.link.batch.begun = fail
        gateway.sockets[1].fail = gateway.twilio[1].abort = refuse  # type: ignore[method-assign]
        gateway.send(text(media("60")), 1)
        gateway.turn()
        assert gateway.link.batch.calls == []
        gateway.close()

    uvloop.run(run())


def test_a_frame_is_in_all_columns_of_a_batch_or_in_none() -> None:
    """Where memory fails in the middle of one, which is why this has a process of its own."""
    pytest.importorskip("_testcapi")
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    failed, passed_on = map(int, done.stdout.splitlines()[-1].split())
    assert failed > 3 and passed_on > 0


OUT_OF_MEMORY = """
import _testcapi, uvloop
from gateway.kernel import kernel
from gateway.turns import Seat
from tests.gateway.test_kernel import Gateway, media, text

Seat.failed = lambda seat, error: None
Seat.leave = lambda seat: None

async def run():
    gateway = Gateway(kernel())
    gateway.open()
    gateway.flush()
    batch = gateway.link.batch
    batch.begun = int
    columns = [batch.calls, batch.payloads, batch.media_ms, batch.received_unix_us]
    ready = [(next(iter(gateway.seats)), 1)]
    failed = passed_on = 0
    at = 20
    for allocation in range(1, 60):
        at += 20
        gateway.send(text(media(str(at))))
        if allocation % 2:
            for column in columns:
                column.clear()  # so that each has to grow
        before = len(columns[0])
        _testcapi.set_nomemory(allocation, allocation + 1)
        gateway.read(ready, gateway.seats)
        _testcapi.remove_mem_hooks()
        lengths = {len(column) for column in columns}
        assert len(lengths) == 1, lengths
        if len(columns[0]) == before:
            failed += 1
            gateway.parsers[0]._rest = b""
            gateway.send(text(media(str(at))))
            gateway.read(ready, gateway.seats)
        else:
            passed_on += 1
    print(failed, passed_on)

uvloop.run(run())
"""


def test_bad_arguments_are_refused() -> None:
    read = cast(Callable[..., None], compiled)
    with pytest.raises(TypeError):
        read([])
    with pytest.raises(TypeError):
        read([1], {})
    with pytest.raises(TypeError, match="Seat"):
        read([(3, 1)], {3: object()})


def test_it_keeps_nothing_of_what_passed() -> None:
    async def run() -> None:
        assert compiled is not None
        gateway = Gateway(compiled)
        gateway.open()
        lane, seats = gateway.lanes[0], gateway.seats
        call = gateway.sockets[0]._call
        assert call is not None
        call.quick.clock._first_us += 10**12  # five minutes are played in a moment
        ready = [(fd, 1) for fd in seats]
        for round_ in range(3):
            for n in range(1, 5001):
                gateway.send(text(media(str(20 + 20 * (5000 * round_ + n)))))
                gateway.read(ready, seats)
                if n % 8 == 0:
                    gateway.link._next_message()
            if round_ == 0:
                blocks, references = sys.getallocatedblocks(), sys.getrefcount(lane.handle)
                memory = resident_kb()
        assert sys.getallocatedblocks() - blocks < 500
        assert sys.getrefcount(lane.handle) - references < 5
        assert resident_kb() - memory < 2000
        gateway.close()

    uvloop.run(run())


def resident_kb() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def test_masks_are_taken_off_whatever_they_are() -> None:
    content = json.dumps(media("40"), separators=(",", ":")).encode()
    head = b"\x81\xfe" + len(content).to_bytes(2, "big")
    for mask in (MASK, b"\x00\x00\x00\x00", b"\xff\x00\x80\x01"):
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))
        assert on_the_quick_way_only(head + mask + masked) == (1, 0)
