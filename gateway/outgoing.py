"""What waits to be said to one worker. Pure; the stream is :mod:`gateway.link`'s.

gRPC's price is per message, not per byte, so a message has all that waits:

* Audio: callers' frames go into it at once, and when it is full into their calls' lanes
  (:mod:`gateway.lane`), which take turns. So no call's audio is in the way of another's.
* Control (an open, a position) goes into the next message, before its audio. Only the end of a call
  goes after the call's audio, in a later message.
* Messages are bounded in frames and bytes, whatever calls send; what is beyond goes into the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.lane import (
    BATCH_FRAMES,
    CLOSING,
    DIRECT_BYTES,
    ENDED,
    LOST,
    MAX_CONTROLS,
    OFFERED,
    OPEN,
    QUEUED,
    TURN_FRAMES,
    WAITING,
    Frame,
    Lane,
)

MESSAGE_BYTES = 1024 * 1024
"""Beyond this a message gets no more audio and no more control: a quarter of a second of a slow
network, and far below the 16 MiB at which gRPC would break the link."""

ALWAYS_FITTING_FRAMES = MESSAGE_BYTES // DIRECT_BYTES
"""So many frames that went straight into a message are never too many bytes for it."""

MAX_CONTROL_BYTES = 4 * MESSAGE_BYTES
"""The largest control; positions of some ten thousand items at once have less."""

MAX_ANNOUNCED = 10_000
"""Stopped streams that wait to be told to one worker: minutes of a busy number's webhooks."""


class Message(NamedTuple):
    """What is said to a worker at once."""

    control: list[session_service_pb2.GatewayControl]
    frames: list[Frame]


class Outgoing:
    """What waits to be said to one worker.

    Args:
        control_waits: Called when there is control to say.
        audio_waits: Called when there is audio to say, and before a message's first frame is added.
        control_dropped: Called with a lane and its control that is beyond the bounds.
    """

    def __init__(
        self,
        *,
        control_waits: Callable[[], None],
        audio_waits: Callable[[], None],
        control_dropped: Callable[[Lane, session_service_pb2.GatewayControl], None],
    ) -> None:
        self.audio_waits = audio_waits
        self._control_waits = control_waits
        self._control_dropped = control_dropped
        self.lanes: dict[int, Lane] = {}
        """Of calls that go on and that the worker has, or was asked for, by handle."""
        self.frames: list[Frame] = []
        """Audio of the next message; open lanes add to it. It is full soon when the worker does not
        take audio, and then it is the lanes that are bounded, each for itself."""
        self._round: deque[Lane] = deque()
        """Lanes in which audio waits, or the end of a call after the audio of the next message."""
        self._control: list[session_service_pb2.GatewayControl] = []
        self._waiting_controls: dict[int, int] = {}
        """How much of it is of which call, by handle."""
        self._last_handle = 0

    @property
    def waits(self) -> bool:
        """Whether anything waits to be said."""
        return bool(self._control or self.frames or self._round)

    # -- what is to be said ------------------------------------------------------------------------

    def offer(self, lane: Lane) -> None:
        """Ask the worker to take a call."""
        self._last_handle += 1
        lane.offered(self, self._last_handle)
        self.lanes[lane.handle] = lane
        self._post(open_call(lane))

    def accept(self, lane: Lane) -> bool:
        """The worker took a call. False: it was not asked, or said so before."""
        if lane.state is not OFFERED:
            return False
        if lane.accepted():
            self.enqueue(lane)
        return True

    def refuse(self, lane: Lane) -> bool:
        """The worker did not take a call. False: it was not asked, or said otherwise before."""
        if lane.state is not OFFERED:
            return False
        del self.lanes[lane.handle]
        lane.enter(WAITING)
        return True

    def withdraw(self, lane: Lane) -> bool:
        """The worker did not answer: it is told that there is no call any more. False: it did."""
        if not self.refuse(lane):
            return False
        self._post(close_call(lane.handle, fact_pb2.CALL_OUTCOME_REFUSED))
        return True

    def announce(self, stopped: session_service_pb2.StreamStopped) -> None:
        """Say that a media stream is over, which may be of a call that the worker has."""
        if len(self._control) < MAX_ANNOUNCED:
            self._post(session_service_pb2.GatewayControl(stream_stopped=stopped))

    def say(self, lane: Lane, control: session_service_pb2.GatewayControl) -> None:
        """Say something of a call, unless too much of it waits already."""
        control.call = lane.handle
        waiting = self._waiting_controls.get(lane.handle, 0)
        if waiting >= MAX_CONTROLS or control.ByteSize() > MAX_CONTROL_BYTES:
            self._control_dropped(lane, control)
            return
        self._waiting_controls[lane.handle] = waiting + 1
        self._post(control)

    def enqueue(self, lane: Lane) -> None:
        """Have a lane take turns: it has audio, or an end to tell, after what left before."""
        self._round.append(lane)
        self.audio_waits()

    def close(self, lane: Lane, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        """Say that a call is over, once its audio is out. What waited for an answer is dropped."""
        self.lanes.pop(lane.handle, None)
        if lane.state is QUEUED:
            lane.enter(CLOSING)
        elif lane.state is OPEN and self.frames:  # some of them may be the call's
            lane.enter(CLOSING)
            self.enqueue(lane)
        else:
            lane.enter(ENDED)
            self._post(close_call(lane.handle, outcome))

    def lose(self) -> list[Lane]:
        """The link broke: nothing that waits is said any more.

        Returns:
            The lanes of the calls that it carried: LOST, or WAITING if the worker had not answered.
        """
        lanes = list(self.lanes.values())
        for lane in lanes:
            lane.enter(WAITING if lane.state is OFFERED else LOST)
        for lane in self._round:
            if lane.state is CLOSING:
                lane.enter(ENDED)
        self.lanes.clear()
        self.frames.clear()
        self._round.clear()
        self._control.clear()
        self._waiting_controls.clear()
        return lanes

    # -- what is said ------------------------------------------------------------------------------

    def next_message(self) -> Message | None:
        """Take the next message out of what waits; None: there is nothing to say."""
        frames = self.frames
        if not self.waits:
            return None
        control = self._take_control()
        if self._control:  # it goes before audio
            return Message(control, [])
        as_usual = not self._round and len(frames) <= ALWAYS_FITTING_FRAMES
        fitting = len(frames) if as_usual else self._fill()
        message = Message(control, frames[:fitting])
        del frames[:fitting]
        return message

    def _take_control(self) -> list[session_service_pb2.GatewayControl]:
        """As much control as a message takes."""
        control, size = self._control, 0
        for number, one in enumerate(control):
            size += one.ByteSize()
            if size > MESSAGE_BYTES and number:
                self._control = control[number:]
                return control[:number]
        self._control = []
        self._waiting_controls.clear()
        return control

    def _fill(self) -> int:
        """Give lanes their turns while the message has room. How many frames it takes."""
        frames, waiting = self.frames, self._round
        size = 0
        for number, frame in enumerate(frames):
            size += len(frame[1])
            if size > MESSAGE_BYTES:
                return max(1, number)
        while waiting and len(frames) < BATCH_FRAMES and size < MESSAGE_BYTES:
            lane = waiting.popleft()
            max_frames = min(TURN_FRAMES, BATCH_FRAMES - len(frames))
            size += lane.take_turn(frames, max_frames, MESSAGE_BYTES - size)
            if lane.waiting_frames:
                waiting.append(lane)
            elif lane.outcome is None:
                lane.enter(OPEN)
            else:
                lane.enter(ENDED)
                self._control.append(close_call(lane.handle, lane.outcome))
        return len(frames)

    def _post(self, control: session_service_pb2.GatewayControl) -> None:
        self._control.append(control)
        self._control_waits()


# -- in the words of the protocol ------------------------------------------------------------------


def open_call(lane: Lane) -> session_service_pb2.GatewayControl:
    """What offers a call to a worker."""
    return session_service_pb2.GatewayControl(
        call=lane.handle,
        open_call=session_service_pb2.OpenCall(call_sid=lane.call_sid, stream_sid=lane.stream_sid),
    )


def close_call(
    handle: int, outcome: fact_pb2.CallOutcome.ValueType
) -> session_service_pb2.GatewayControl:
    """What tells a worker that a call is over."""
    return session_service_pb2.GatewayControl(
        call=handle, close_call=session_service_pb2.CloseCall(outcome=outcome)
    )


def to_request(message: Message) -> session_service_pb2.LinkRequest:
    """A message as gRPC sends it.

    Raises:
        Exception: A frame cannot be in a message: :func:`sound_frames` tells which.
    """
    request = session_service_pb2.LinkRequest(control=message.control)
    if message.frames:
        # Filled in place: one given to another's constructor is encoded and decoded.
        audio = request.caller_audio
        handles, payloads, timestamps_ms, received_unix_us = zip(*message.frames, strict=True)
        audio.call.extend(handles)
        audio.payload.extend(payloads)
        audio.media_ms.extend(timestamps_ms)
        audio.received_unix_us.extend(received_unix_us)
    return request


def sound_frames(frames: Iterable[Frame]) -> tuple[list[Frame], set[int]]:
    """Those of the calls whose frames can all be in a message, and the handles of the others."""
    sound: list[Frame] = []
    faulty: set[int] = set()
    for frame in frames:
        if frame[0] in faulty:
            continue
        try:
            to_request(Message([], [frame]))
        except Exception:
            faulty.add(frame[0])
        else:
            sound.append(frame)
    return sound, faulty
