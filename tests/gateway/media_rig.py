"""A media connection with everything around it in a test's hands: no socket, no link, no clock."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.call import CallServices
from gateway.instant import Instant
from gateway.lane import Lane, LaneListener
from gateway.media_connection import MediaConnection
from gateway.media_sink import MediaSink
from gateway.metrics import GatewayMetrics
from gateway.nonce import NonceChecker
from gateway.registry import Registry
from gateway.turns import Seat
from gateway.websocket_protocol import Received
from runtime.facts import FactOutbox, FactWriter
from tests.gateway.wire import media, started, text

BEGAN = Instant(mono_us=7_000_000, unix_us=1_700_000_000_000_000)


class RecordingLane:
    """A call's lane: takes everything, and writes it down."""

    def __init__(self) -> None:
        self.frames: list[tuple[bytes, int, int]] = []
        self.controls: list[str] = []
        self.outcome: fact_pb2.CallOutcome.ValueType | None = None
        self.full = False
        self.fault: BaseException | None = None
        """What it raises over each frame."""

    def send_audio(self, payload: bytes, timestamp_ms: int, received_unix_us: int) -> bool:
        if self.fault is not None:
            raise self.fault
        self.frames.append((payload, timestamp_ms, received_unix_us))
        return not self.full

    def send(self, control: session_service_pb2.GatewayControl) -> None:
        self.controls.append(str(control))

    def close(self, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        self.outcome = outcome


class RecordingSink(MediaSink):
    """Twilio's end: writes down what it would write."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.over = 0
        """How often the connection was ended, in either way."""

    def write(self, frames: bytes) -> None:
        self.written.append(frames)

    def unsent_bytes(self) -> int:
        return 0

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    def peer_closed(self) -> None:
        self.over += 1

    def abort(self) -> None:
        self.over += 1


class RecordingSeat:
    """Where the socket would be read."""

    def __init__(self) -> None:
        self.left = 0

    def leave_turns(self) -> None:
        self.left += 1


class RecordingFacts:
    """An outbox that keeps everything."""

    def __init__(self) -> None:
        self.facts: list[str] = []

    def writer(self, call_sid: str, writer: str) -> FactWriter:
        return FactWriter(cast(FactOutbox, self), call_sid, writer)

    def post(self, call_sid: str, writer: str, sequence: int, body: dict[str, Any]) -> None:
        self.facts.append(f"{call_sid} {writer} {sequence} {body}")


class RecordingConnection(MediaConnection):
    """Writes down what it is told by its own reading."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.texts: list[bytes] = []
        self.others: list[Received] = []

    def receive_text(self, text: bytes, at: Instant) -> None:
        self.texts.append(text)
        super().receive_text(text, at)

    def receive(self, received: Received, at: Instant) -> None:
        self.others.append(received)
        super().receive(received, at)


class Rig:
    """One connection and all that it leads to. Needs a running event loop; no timer ever fires."""

    def __init__(self, nonces: NonceChecker | None = None) -> None:
        self.at = BEGAN
        self.metrics_registry = CollectorRegistry()
        self.metrics = GatewayMetrics(self.metrics_registry)
        self.sink = RecordingSink()
        self.seat = RecordingSeat()
        self.facts = RecordingFacts()
        self.calls = Registry()
        self.lane = RecordingLane()
        self.listener: LaneListener
        services = CallServices(self, self.facts, self.metrics, lambda: self.at)
        self.connection = RecordingConnection(self.sink, services, self.calls, nonces)
        self.connection.seat = cast(Seat, self.seat)

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        self.listener = listener
        return cast(Lane, self.lane)

    def announce_stopped(self, call_sid: str, stream_sid: str) -> None:
        raise AssertionError("no callback comes here")

    def wait(self, ms: float) -> None:
        """Let time pass."""
        us = int(ms * 1000)
        self.at = Instant(self.at.mono_us + us, self.at.unix_us + us)

    def take(self, wire: bytes, *cuts: int) -> None:
        """Give what a socket brought, in pieces of these lengths by turns; without any, in one."""
        begin = number = 0
        while begin < len(wire):
            end = begin + (cuts[number % len(cuts)] if cuts else len(wire))
            self.connection.take(wire[begin:end], self.at)
            begin, number = end, number + 1

    def start(self) -> None:
        """Begin a call, up to its second frame."""
        self.take(text({"event": "connected"}) + started())
        for timestamp_ms in (0, 20):
            self.take(text(media(str(timestamp_ms))))
            self.wait(20)

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self.lane.outcome is not None

    def count(self, name: str, **labels: str) -> float:
        """A metric."""
        return self.metrics_registry.get_sample_value(name, labels) or 0.0

    def seen(self) -> dict[str, object]:
        """All that anybody sees of it."""
        return {
            "frames": self.lane.frames,
            "controls": self.lane.controls,
            "outcome": self.lane.outcome,
            "facts": self.facts.facts,
            "written": self.sink.written,
            "closed": self.sink.closed,
            "over": self.sink.over,
            "left": self.seat.left,
            "metrics": {
                (sample.name, str(sample.labels)): sample.value
                for metric in self.metrics_registry.collect()
                for sample in metric.samples
                if not sample.name.endswith("_created")
            },
        }
