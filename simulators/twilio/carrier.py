"""One Media Stream at Twilio's end, as a pure machine in virtual time.

Rules, from Twilio's message reference; where it is silent, our choice is marked so.

1. **Clock.** Whole milliseconds of the media clock, 0 when ``start`` leaves. Frames of 20 ms lie
   on a grid through ``first_timestamp_ms`` (Twilio's first timestamp need not be 0). Nothing
   happens by itself: :meth:`Carrier.advance` plays up to the ``now`` it is given, whatever lay
   between.
2. **Caller to server.** What the caller said in [T, T + 20) leaves at T + 20, stamped T: a frame
   cannot leave before it was spoken (ours). ``sequenceNumber``, ``chunk`` and ``timestamp`` are
   strings.
3. **Playout.** Audio is buffered and played in order, in real time. At each grid point the next 160
   bytes are taken; a frame that finds fewer plays those, then silence to its end; what arrives
   on a grid point itself waits for the next (ours).
4. **Marks** are echoed, first in first out, when the audio sent before them has been played, to
   the ms (rounded up); at once if none is waiting.
5. **Clear** silences the line at that ms: the rest of the current frame and all that is buffered
   is dropped, and every pending mark is echoed in one burst, in order (order and burst are ours;
   Twilio only says that they come back).
6. **Limits.** Audio beyond ten minutes of buffer is discarded (31931). A message that breaks the
   protocol is ignored and noted (31950, 31951), or ends the stream if ``close_on_violation``.

Positions count the accepted bytes of agent audio, in the order received: byte ``p`` is at ``p /
8`` ms of that audio. Dropped bytes keep their positions, so a position never means two things.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulators import frame_tag
from simulators.speech.corpus import Speech
from simulators.speech.g711 import BYTES_PER_MS, SILENCE
from simulators.twilio import messages
from simulators.twilio.stream_truth import (
    CallerLine,
    Echo,
    Flush,
    MediaMessage,
    Outgoing,
    StreamTruth,
    Stretch,
    Warned,
)

FRAME_MS = 20
FRAME_BYTES = FRAME_MS * BYTES_PER_MS
BUFFER_LIMIT_MS = 600_000
"""Ten minutes, as the page of warning 31931 has it."""

_SILENT_FRAME = SILENCE * FRAME_BYTES


@dataclass(frozen=True, slots=True)
class _Pending:
    name: str
    position: int
    received_ms: int


class _Writer:
    """The messages that leave: numbered, and timed when they do."""

    def __init__(self, stream_sid: str) -> None:
        self._stream_sid = stream_sid
        self._sequence = 0
        self._chunk = 0
        self._left: list[Outgoing] = []

    def write(self, at_ms: int, message: Mapping[str, Any]) -> None:
        """Send a message without a number: ``connected``."""
        self._left.append(Outgoing(at_ms, message))

    def number(self, at_ms: int, event: str, body: Mapping[str, Any]) -> None:
        """Send the stream's next message."""
        self._sequence += 1
        self.write(
            at_ms,
            {
                "event": event,
                "sequenceNumber": str(self._sequence),
                "streamSid": self._stream_sid,
                event: body,
            },
        )

    def media(self, at_ms: int, timestamp_ms: int, payload: bytes) -> None:
        """Send the caller's frame."""
        self._chunk += 1
        body = {
            "track": "inbound",
            "chunk": str(self._chunk),
            "timestamp": str(timestamp_ms),
            "payload": base64.b64encode(payload).decode("ascii"),
        }
        self.number(at_ms, "media", body)

    def take(self) -> list[Outgoing]:
        """What has left since the last call."""
        taken, self._left = self._left, []
        return taken


class Carrier:
    """Twilio's end of one bidirectional Media Stream.

    Feed it with :meth:`receive` (messages of the server), :meth:`speak`, :meth:`press` and
    :meth:`hang_up` (the caller) and :meth:`advance` (time), then collect :meth:`take`. ``now`` must
    not go backwards. ``truth`` says what was really played.
    """

    def __init__(
        self,
        *,
        stream_sid: str = "MZ00000000000000000000000000000001",
        call_sid: str = "CA00000000000000000000000000000001",
        account_sid: str = "AC00000000000000000000000000000001",
        parameters: Mapping[str, str] | None = None,
        first_timestamp_ms: int = 63,
        buffer_limit_ms: int = BUFFER_LIMIT_MS,
        close_on_violation: bool = False,
        send_frames: bool = True,
        omit_silence: bool = False,
        tag: int | None = None,
        first_frame: int = 0,
        keep_audio: bool = True,
    ) -> None:
        """Open the stream: ``connected`` and ``start`` are the first messages to take.

        Args:
            stream_sid: The stream's name at Twilio.
            call_sid: The call's.
            account_sid: The account's.
            parameters: ``customParameters`` of ``start``.
            first_timestamp_ms: Timestamp of the first caller frame.
            buffer_limit_ms: How much agent audio is buffered at most.
            close_on_violation: End the stream at the first message Twilio warns about.
            send_frames: Send caller frames at all; a test of playout alone may not want them.
            omit_silence: Leave out frames in which the caller says nothing; timestamps then jump.
            tag: Number of the call, written into every caller frame (see ``frame_tag``); None
                leaves the frames as they are.
            first_frame: Tag of the first frame; a call's second stream goes on counting.
            keep_audio: Keep the agent's audio in ``truth``.
        """
        self.stream_sid = stream_sid
        self.truth = StreamTruth(stream_sid)
        self.close_wanted = False
        """A violation ended the stream: the socket is to be closed."""
        self._call_sid = call_sid
        self._account_sid = account_sid
        self._first_timestamp_ms = first_timestamp_ms
        self._buffer_limit_bytes = buffer_limit_ms * BYTES_PER_MS
        self._close_on_violation = close_on_violation
        self._send_frames = send_frames
        self._omit_silence = omit_silence
        self._tag = tag
        self._first_frame = first_frame
        self._keep_audio = keep_audio

        self._now_ms = 0
        self._next_tick_ms = first_timestamp_ms % FRAME_MS
        self._writer = _Writer(stream_sid)
        self._timestamp_shift_ms = 0
        self._ended = False

        self._received_bytes = 0
        self._taken_bytes = 0
        """Position of the next byte to take for playing."""
        self._frame_start_ms = 0
        self._frame_from = 0
        self._frame_to = 0
        """The frame that is sounding: positions, and when it began."""
        self._marks: deque[_Pending] = deque()

        self._mouth: deque[bytes] = deque()
        """Caller frames still to be spoken."""
        self._captured: bytes | None = None
        """What the caller says in the frame under way; None before the first frame."""
        self._captured_is_silence = True

        self._writer.write(
            self._now_ms, {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        )
        self._writer.number(
            self._now_ms,
            "start",
            {
                "streamSid": stream_sid,
                "accountSid": account_sid,
                "callSid": call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": dict(parameters or {}),
            },
        )

    # --- what a driver may ask ---------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """Media clock of the last call."""
        return self._now_ms

    @property
    def ended(self) -> bool:
        """The stream is over; nothing more is played or sent."""
        return self._ended

    @property
    def received_bytes(self) -> int:
        """Agent audio accepted so far."""
        return self._received_bytes

    @property
    def position(self) -> int:
        """Position up to which agent audio has been played or dropped, at ``now_ms``, exactly."""
        sounded = (self._now_ms - self._frame_start_ms) * BYTES_PER_MS
        return min(self._frame_from + sounded, self._frame_to)

    @property
    def playing(self) -> bool:
        """The agent is audible, or will be at the next grid point."""
        return self.position < self._received_bytes

    @property
    def last_played_ms(self) -> int | None:
        """When the agent was last audible up to ``now_ms``; None if never."""
        if not self.truth.played:
            return None
        return min(self.truth.played[-1].end_ms, self._now_ms)

    @property
    def speaking(self) -> bool:
        """The caller has still something to say."""
        return bool(self._mouth)

    @property
    def pending_marks(self) -> tuple[str, ...]:
        """Marks not returned yet, first in first."""
        return tuple(mark.name for mark in self._marks)

    def played_bytes(self) -> int:
        """How much agent audio has sounded in all, at ``now_ms``, exactly."""
        whole = sum(s.end_byte - s.start_byte for s in self.truth.played)
        return whole - (self._frame_to - self.position)

    def next_due_ms(self) -> int:
        """When :meth:`advance` next has something to do; never earlier than now."""
        due = self._next_tick_ms
        if self._marks and (echo := self._echo_due_ms(self._marks[0])) is not None:
            due = min(due, echo)
        return max(due, self._now_ms)

    # --- facts in ----------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Let the media clock run to ``now``.

        Raises:
            ValueError: ``now`` lies in the past.
        """
        if now < self._now_ms:
            raise ValueError(f"now ({now}) is before the last call ({self._now_ms})")
        if self._ended:
            return
        while self._next_tick_ms <= now:
            self._echo_played(self._next_tick_ms)
            self._tick(self._next_tick_ms)
            self._next_tick_ms += FRAME_MS
        self._echo_played(now)
        self._now_ms = now

    def receive(self, message: str | bytes, now: int) -> None:
        """Take a message of the server that arrives now."""
        self.advance(now)
        if self._ended:
            return
        try:
            parsed = messages.parse(message, self.stream_sid)
        except messages.Violation as violation:
            self.warn(violation.code, violation.detail)
            if self._close_on_violation:
                self.close_wanted = True
                self._end()
            return
        match parsed:
            case messages.Media(payload):
                self._buffer(payload)
            case messages.Mark(name):
                self._marks.append(_Pending(name, self._received_bytes, now))
                self._echo_played(now)
            case messages.Clear():
                self._clear()

    def speak(self, speech: Speech, now: int) -> CallerLine:
        """Let the caller say a line, from the next frame on or after what is still being said."""
        self.advance(now)
        start_ms = max(self._next_tick_ms, self._first_timestamp_ms) + FRAME_MS * len(self._mouth)
        for at in range(0, len(speech.ulaw), FRAME_BYTES):
            self._mouth.append(speech.ulaw[at : at + FRAME_BYTES].ljust(FRAME_BYTES, SILENCE))
        end_ms = speech.words[-1].end_ms if speech.words else speech.duration_ms
        line = CallerLine(
            speech.name, speech.text, start_ms, start_ms + speech.onset_ms, start_ms + end_ms
        )
        (self.truth.caller_lines if speech.words else self.truth.noises).append(line)
        return line

    def press(self, digit: str, now: int) -> None:
        """Let the caller press a key.

        Raises:
            ValueError: There is no such key.
        """
        if len(digit) != 1 or digit not in "0123456789*#ABCD":
            raise ValueError("a key is one of 0-9, *, #, A-D")
        self.advance(now)
        self._writer.number(self._now_ms, "dtmf", {"track": "inbound_track", "digit": digit})

    def shift_timestamps(self, by_ms: int, now: int) -> None:
        """Make the stamps of coming frames jump, forwards or (negative) backwards."""
        self.advance(now)
        self._timestamp_shift_ms += by_ms

    def set_omit_silence(self, omit: bool, now: int) -> None:
        """Begin or cease to leave out silent frames."""
        self.advance(now)
        self._omit_silence = omit

    def hang_up(self, now: int) -> None:
        """End the call as Twilio does: ``stop`` is the last message; marks pending stay silent."""
        self.advance(now)
        if self._ended:
            return
        self._writer.number(
            self._now_ms, "stop", {"accountSid": self._account_sid, "callSid": self._call_sid}
        )
        self._end()

    def lose_socket(self, now: int) -> None:
        """The socket is gone, without ``stop``; what was still buffered is dropped (ours)."""
        self.advance(now)
        if not self._ended:
            self._end()

    def warn(self, code: int, detail: str) -> None:
        """Note a warning, as Twilio's console would show it."""
        seen = any(w.code == code for w in self.truth.warnings)
        self.truth.warnings.append(Warned(self._now_ms, code, detail, reported=not seen))

    # --- answers out -------------------------------------------------------------------------

    def take(self) -> list[Outgoing]:
        """Messages to the server since the last call, in the order of their times."""
        return self._writer.take()

    # --- inside ------------------------------------------------------------------------------

    def _buffer(self, payload: bytes) -> None:
        room = self._buffer_limit_bytes - (self._received_bytes - self.position)
        accepted = payload[: max(0, room)]
        start = self._received_bytes
        self._received_bytes += len(accepted)
        if self._keep_audio:
            self.truth.audio += accepted
        discarded = len(payload) - len(accepted)
        self.truth.media.append(MediaMessage(self._now_ms, start, self._received_bytes, discarded))
        if discarded:
            self.warn(messages.AUDIO_DISCARDED, "more than 10 minutes of audio are buffered")

    def _clear(self) -> None:
        silenced = self.position
        self._cut_frame(silenced)
        marks = tuple(self._marks)
        self._marks.clear()
        self.truth.flushes.append(
            Flush(self._now_ms, silenced, self._received_bytes, tuple(mark.name for mark in marks))
        )
        self._taken_bytes = self._frame_from = self._frame_to = self._received_bytes
        for mark in marks:
            self._echo(mark, self._now_ms, flushed=True)

    def _cut_frame(self, at: int) -> None:
        """Take back from the record what of the current frame will not sound."""
        if self._frame_to > at:
            last = self.truth.played[-1]
            last.end_byte = at
            if last.end_byte == last.start_byte:
                self.truth.played.pop()

    def _end(self) -> None:
        self._cut_frame(self.position)
        self._frame_to = self.position
        self._marks.clear()
        self._ended = True
        self.truth.ended_ms = self._now_ms

    def _tick(self, at: int) -> None:
        """One grid point: the frame just spoken leaves, the next one is spoken and played."""
        self._now_ms = at
        if self._captured is not None:
            self._send_frame(at - FRAME_MS, self._captured)
        if at >= self._first_timestamp_ms:
            self._captured_is_silence = not self._mouth
            self._captured = self._mouth.popleft() if self._mouth else _SILENT_FRAME
        size = min(FRAME_BYTES, self._received_bytes - self._taken_bytes)
        if not size:
            return
        self._frame_start_ms = at
        self._frame_from = self._taken_bytes
        self._frame_to = self._taken_bytes = self._taken_bytes + size
        played = self.truth.played
        if played and played[-1].continues_with(self._frame_from, at):
            played[-1].end_byte = self._frame_to
        else:
            played.append(Stretch(self._frame_from, self._frame_to, at))

    def _send_frame(self, timestamp_ms: int, payload: bytes) -> None:
        if self._captured_is_silence and self._omit_silence:
            self.truth.frames_omitted += 1
            return
        if self._tag is not None:
            number = self._first_frame + self.truth.frames_sent
            payload = frame_tag.stamp(payload, self._tag, number)
        self.truth.frames_sent += 1
        if not self._send_frames:
            return
        self._writer.media(self._now_ms, timestamp_ms + self._timestamp_shift_ms, payload)

    def _echo_due_ms(self, mark: _Pending) -> int | None:
        """When the audio before a mark will have sounded; None while that is not decided."""
        if mark.position <= self._frame_from:
            return mark.received_ms
        if mark.position > self._frame_to:
            return None
        sounded = -(-(mark.position - self._frame_from) // BYTES_PER_MS)
        return max(mark.received_ms, self._frame_start_ms + sounded)

    def _echo_played(self, until: int) -> None:
        while self._marks:
            due = self._echo_due_ms(self._marks[0])
            if due is None or due > until:
                return
            self._echo(self._marks.popleft(), due, flushed=False)

    def _echo(self, mark: _Pending, at: int, *, flushed: bool) -> None:
        self.truth.echoes.append(Echo(mark.name, mark.position, mark.received_ms, at, flushed))
        self._now_ms = max(self._now_ms, at)
        self._writer.number(self._now_ms, "mark", {"name": mark.name})
