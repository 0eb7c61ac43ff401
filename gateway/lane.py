"""A call's lane to its session worker: where its frames and control go, state by state. Pure.

A caller's frame goes straight into the next message of the link. Only what has no room there waits
in the lane, which is bounded: when a worker does not take audio, the oldest of that call is dropped,
and counted, and no other's. What the lanes of one worker share is in :mod:`gateway.outgoing`.

A lane is in one of these states::

    state    what it means                           a frame goes to   control goes to
    WAITING  no worker has the call                  the lane          the lane
    OFFERED  a worker was asked                      the lane          the lane
    OPEN     a worker has it, and nothing waits      the next message  the next message
    QUEUED   a worker has it, and audio waits        the lane          the next message
    CLOSING  the call is over, its audio not gone    nowhere           nowhere
    LOST     the link broke; the call hears it next  nowhere           nowhere
    ENDED    the call is over, the worker told       nowhere           nowhere

    WAITING  offered → OFFERED · closed → ENDED
    OFFERED  accepted → OPEN, or QUEUED when audio waits · refused, link lost → WAITING
             closed → ENDED, and the worker is told
    OPEN     no room in the next message → QUEUED · link lost → LOST
             closed → CLOSING, or ENDED when no audio waits at all, and the worker is told
    QUEUED   its turn left nothing → OPEN · link lost → LOST · closed → CLOSING
    CLOSING  its turn left nothing → ENDED, and the worker is told · link lost → ENDED
    LOST     closed → ENDED
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Protocol

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.instant import Instant

KEPT_FRAMES = 250
"""Caller audio kept per call, 5 s: a worker that stalls for longer would answer what was said
long ago."""

KEPT_BYTES = 64 * 1024
"""The same in base64 text, 6 s, for frames that are longer than Twilio's 20 ms."""

MAX_FRAME_BYTES = KEPT_BYTES
"""The longest frame that is passed on at all. Twilio's have 216."""

DIRECT_BYTES = 2048
"""The longest frame that goes straight into the next message, 190 ms: what waits there is bounded in
frames. Longer ones wait in their call's lane, which is bounded in bytes."""

BATCH_FRAMES = 1000
"""The maximum of frames in a message, some 250 KB, so that control never waits for a large one. A
core that is late catches up by larger messages, which cost less per frame."""

TURN_FRAMES = 10
"""The maximum of one call's frames in a row while others wait."""

MAX_CONTROLS = 256
"""Control of one call that may wait, for a message or for a worker: keys that are pressed by a
machine. More of it is dropped."""

Kept = tuple[bytes, int, int]
"""A caller's frame that waits in a lane: payload, timestamp_ms, received_unix_us."""

Frame = tuple[int, bytes, int, int]
"""A caller's frame in a message: handle, payload, timestamp_ms, received_unix_us. It is one object, so
it is in a message as a whole or not at all."""


class LaneListener(Protocol):
    """What a call wants to hear from its session worker. None of it may block.

    ``at`` is when it came: read once for all that one message of the link brings.
    """

    def session_accepted(self, session_writer: str) -> None:
        """A worker took the call; ``session_writer`` names it in the transcript's facts."""

    def session_refused(self, reason: str, at: Instant) -> None:
        """No worker took the call. Nothing follows."""

    def session_lost(self, reason: str, at: Instant) -> None:
        """The link broke. Nothing follows."""

    def session_finished(self, finished: session_service_pb2.CallFinished, at: Instant) -> None:
        """The session is over; what was sent may be played to its end."""

    def agent_audio(
        self, item_id: str, content_index: int, payload: bytes, last: bool, at: Instant
    ) -> None:
        """Audio to be played: base64 text of µ-law; nothing more of this part when ``last``."""

    def interrupted(self, interrupt: session_service_pb2.Interrupt, at: Instant) -> None:
        """The caller speaks: stop playback."""

    def stream_stopped(self, at: Instant) -> None:
        """Twilio told another gateway that the media stream is over."""

    def call_over(self, at: Instant) -> None:
        """Twilio told another gateway that the call is over."""

    def cut(self) -> None:
        """Lose the media stream: what should have ended the call has raised."""


class Worker(Protocol):
    """What a lane needs of the way to its worker: :class:`gateway.outgoing.Outgoing`."""

    frames: list[Frame]
    """Audio of the next message."""

    def audio_waits(self) -> None:
        """The first frame of a message is about to be added to ``frames``."""

    def enqueue(self, lane: Lane) -> None:
        """The lane has audio that waits for a turn."""

    def say(self, lane: Lane, control: session_service_pb2.GatewayControl) -> None:
        """The call has something to say."""

    def close(self, lane: Lane, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        """The call is over."""


class LaneState(enum.Enum):
    """Where a call's audio and control go; the table is at the top of this file."""

    WAITING = enum.auto()
    OFFERED = enum.auto()
    OPEN = enum.auto()
    QUEUED = enum.auto()
    CLOSING = enum.auto()
    LOST = enum.auto()
    ENDED = enum.auto()


WAITING, OFFERED, OPEN, QUEUED, CLOSING, LOST, ENDED = LaneState

NEXT_STATES = {
    WAITING: {OFFERED, ENDED},
    OFFERED: {OPEN, QUEUED, WAITING, ENDED},
    OPEN: {QUEUED, LOST, CLOSING, ENDED},
    QUEUED: {OPEN, LOST, CLOSING},
    CLOSING: {ENDED},
    LOST: {ENDED},
    ENDED: set[LaneState](),
}


class Lane:
    """One call's way to its session worker, whichever that comes to be.

    Args:
        listener: The call.
        call_sid: The call's, for the worker.
        stream_sid: The media stream's, for the worker.
        patience_until_s: Until when, by the event loop's clock, a worker is waited for when none
            takes the call.
    """

    __slots__ = (
        "_audio",
        "_audio_bytes",
        "_direct",
        "_early",
        "_to_worker",
        "call_sid",
        "handle",
        "listener",
        "outcome",
        "patience_until_s",
        "state",
        "stream_sid",
        "tried",
    )

    def __init__(
        self,
        listener: LaneListener,
        call_sid: str,
        stream_sid: str,
        *,
        patience_until_s: float = 0.0,
    ) -> None:
        self.listener = listener
        """The call. Not there any more once the lane is closed."""
        self.call_sid = call_sid
        self.stream_sid = stream_sid
        self.patience_until_s = patience_until_s
        self.tried: set[object] = set()
        """Links that refused the call."""
        self.state = WAITING
        self.handle = 0
        """What the worker knows the call by. Another one with each offer."""
        self.outcome: fact_pb2.CallOutcome.ValueType | None = None
        """Why the call ended; None while it goes on."""
        self._to_worker: Worker | None = None
        """To the worker that has the call, or was asked."""
        self._direct: list[Frame] | None = None
        """Audio of the next message, when the lane is OPEN. None: frames do not go there."""
        self._audio: deque[Kept] = deque()
        """Frames that wait, oldest first."""
        self._audio_bytes = 0
        """Payload of theirs."""
        self._early: list[session_service_pb2.GatewayControl] = []
        """Control that waits for a worker: a pressed key, at most a few."""

    @property
    def waiting_frames(self) -> int:
        """How many frames wait here, rather than in the next message."""
        return len(self._audio)

    def send_audio(self, payload: bytes, timestamp_ms: int, received_unix_us: int) -> bool:
        """Pass the caller's frame on.

        Args:
            payload: Base64 text of µ-law, as Twilio sent it.
            timestamp_ms: Twilio's media timestamp.
            received_unix_us: When it came, by the wall clock.

        Returns:
            False when audio was dropped: this frame, as too long, or the oldest that waits.
        """
        # All frames of all callers pass here.
        frames = self._direct
        if frames is not None and len(payload) <= DIRECT_BYTES:
            handle = self.handle
            n = len(frames)
            if n < BATCH_FRAMES and (
                n < TURN_FRAMES or frames[n - 1][0] != handle or not _ends_in_turn(frames)
            ):
                if not n:
                    self._worker.audio_waits()
                frames.append((handle, payload, timestamp_ms, received_unix_us))
                return True
        return self._keep((payload, timestamp_ms, received_unix_us))

    def send(self, control: session_service_pb2.GatewayControl) -> None:
        """Send control, before audio; what comes before a worker took the call waits for it.

        More than :data:`MAX_CONTROLS` at once are dropped; so is what comes after the end.
        """
        if self.state is OPEN or self.state is QUEUED:
            self._worker.say(self, control)
        elif (self.state is WAITING or self.state is OFFERED) and len(self._early) < MAX_CONTROLS:
            self._early.append(control)

    def close(self, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        """The call is over: say so after its last audio. The listener hears nothing more."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        del self.listener  # so that both are freed at once, and not by the garbage collector
        if self._to_worker is None:
            self.enter(ENDED)
        else:
            self._to_worker.close(self, outcome)

    # -- what the other end of the lane does -------------------------------------------------------

    def offered(self, worker: Worker, handle: int) -> None:
        """A worker is asked."""
        self._to_worker, self.handle = worker, handle
        self.enter(OFFERED)

    def accepted(self) -> bool:
        """The worker took the call: say what waited for it. Whether audio waits for a turn."""
        self.enter(QUEUED if self._audio else OPEN)
        early, self._early = self._early, []
        for control in early:
            self._worker.say(self, control)
        return self.state is QUEUED

    def take_turn(self, frames: list[Frame], max_frames: int, max_bytes: int) -> int:
        """Move the oldest frames that wait into a message.

        Args:
            frames: The message's.
            max_frames: No more than so many.
            max_bytes: Of payload; the last frame may go beyond.

        Returns:
            Bytes of their payload.
        """
        size = 0
        for _ in range(min(max_frames, len(self._audio))):
            kept = self._pop_oldest()
            frames.append((self.handle, *kept))
            size += len(kept[0])
            if size >= max_bytes:
                break
        return size

    def enter(self, state: LaneState) -> None:
        """Go into another state.

        Raises:
            AssertionError: There is no way there from the present one.
        """
        if state not in NEXT_STATES[self.state]:
            raise AssertionError(f"a lane does not go from {self.state.name} to {state.name}")
        self.state = state
        self._direct = self._worker.frames if state is OPEN else None
        if state is WAITING or state is LOST or state is ENDED:
            self._to_worker = None
        if state is LOST or state is ENDED:
            self._audio.clear()
            self._audio_bytes = 0
            self._early.clear()

    @property
    def _worker(self) -> Worker:
        if self._to_worker is None:
            raise AssertionError("no worker has the call")
        return self._to_worker

    def _keep(self, kept: Kept) -> bool:
        """Have a frame wait here; False when audio was dropped."""
        if self.state is CLOSING or self.state is LOST or self.state is ENDED:
            return True  # nobody is to hear it, so nobody misses it
        size = len(kept[0])
        if size > MAX_FRAME_BYTES:
            return False
        self._audio.append(kept)
        self._audio_bytes += size
        all_kept = True
        while len(self._audio) > KEPT_FRAMES or self._audio_bytes > KEPT_BYTES:
            self._pop_oldest()
            all_kept = False
        if self.state is OPEN:
            self.enter(QUEUED)
            self._worker.enqueue(self)
        return all_kept

    def _pop_oldest(self) -> Kept:
        kept = self._audio.popleft()
        self._audio_bytes -= len(kept[0])
        return kept


def _ends_in_turn(frames: list[Frame]) -> bool:
    """Whether the newest frames are a whole turn of one call."""
    handle = frames[-1][0]
    return all(frame[0] == handle for frame in frames[-TURN_FRAMES:])
