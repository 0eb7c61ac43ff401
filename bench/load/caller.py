"""Twilio's end for figures: many calls in one cheap process (``python -m bench.load.caller``).

Each call sends 50 frames a second, plays what it is given on a true 20 ms beat, echoes marks, obeys
``clear``, and has a caller who lets the agent speak, or speaks into what it says, at random but by
a seed. The agent speaks about half of the time: after an item the caller is quiet, or speaks, for
as long as it was heard.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.load import control, frames, lines, record, tag
from bench.load.clock import Beat
from bench.load.playout import Playout
from bench.load.truth import played_items
from simulators import frame_tag

FRAME_MS = 20
_NEVER = 1 << 60
_SPEECH_FRAMES = (30, 70)
"""The caller speaks for 0.6 to 1.4 s."""
_ANSWER_FRAMES = 33
"""About what passes between the caller's last word and the agent's first."""
_MIN_PAUSE_FRAMES = 10
_PATIENCE_FRAMES = 250
"""5 s without an answer, and the caller speaks again."""


class Plan(NamedTuple):
    """What the calls of a process are like."""

    url: str
    run: int
    """Makes the call SIDs of this run unlike those of another."""
    seed: int
    barge_in_share: float
    """Which part of the agent's items the caller speaks into."""


class _Media(msgspec.Struct):
    payload: bytes


class _Mark(msgspec.Struct):
    name: str


class _Message(msgspec.Struct):
    event: str
    media: _Media | None = None
    mark: _Mark | None = None


_decode = msgspec.json.Decoder(_Message).decode


class Call(WSListener):
    """One call: the line, the caller on it, and the socket."""

    def __init__(self, plan: Plan, number: int, beat: Beat) -> None:
        self._beat = beat
        self._number = number
        self._share = plan.barge_in_share
        self._random = random.Random(f"{plan.seed}/{number}/caller")
        self._playout = Playout()
        self._transport: WSTransport | None = None
        self._tcp: asyncio.Transport | None = None
        self._fd = -1
        """The socket, once connected."""
        call_sid = f"CA{plan.run:024x}{number:08x}"
        self._stream_sid = f"MZ{plan.run:024x}{number:08x}"
        self._record = record.CallerCall(number, call_sid)
        self._messages = frames.MediaMessages(self._stream_sid, number)
        self._sequence = 1
        self._first_ms = self._random.randrange(100)
        self.ended = asyncio.Event()

        self._speaking = False
        self._listening = False
        self._due = self._random.randrange(75, 125)
        """The frame with which the caller does the next thing."""
        self._watch = _NEVER
        """The position at which the caller cuts in, or has heard all."""
        self._cuts_in = False
        self._reply_line = 0
        self._reply_ms = 0
        self._reply_start = 0

    # --- the socket -----------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The stream begins."""
        self._transport = transport
        start = {
            "event": "start", "sequenceNumber": "1", "streamSid": self._stream_sid,
            "start": {
                "streamSid": self._stream_sid, "accountSid": "AC" + 32 * "0",
                "callSid": self._record.call_sid, "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {},
            },
        }  # fmt: skip
        transport.send(WSMsgType.TEXT, b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        transport.send(WSMsgType.TEXT, msgspec.json.encode(start))
        self._tcp = transport.underlying_transport
        self._fd = self._tcp.get_extra_info("socket").fileno()
        self._beat.join(self._on_beat)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        self._transport = self._tcp = None
        self._beat.leave(self._on_beat)
        if not self._record.ended:
            self._record.ended = "lost"
            self._playout.hang_up(time.monotonic_ns())
        self.ended.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One message of the bridge."""
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind is WSMsgType.TEXT:
            message = _decode(frame.get_payload_as_bytes())
            if message.event == "media" and message.media is not None:
                self._on_media(message.media.payload)
            elif message.event == "mark" and message.mark is not None:
                name = message.mark.name.encode()
                if self._playout.mark(name):
                    self._echo(name)
            elif message.event == "clear":
                self._on_clear()

    def hang_up(self) -> None:
        """``stop``, then the end of the socket."""
        if self._transport is None or self._record.ended:
            return
        self._record.ended = "hung_up"
        self._beat.leave(self._on_beat)
        self._playout.hang_up(time.monotonic_ns())
        self._sequence += 1
        stop = {
            "event": "stop", "sequenceNumber": str(self._sequence), "streamSid": self._stream_sid,
            "stop": {"accountSid": "AC" + 32 * "0", "callSid": self._record.call_sid},
        }  # fmt: skip
        self._transport.send(WSMsgType.TEXT, msgspec.json.encode(stop))
        self._transport.send_close()
        # A peer that does not answer the close must not keep the call.
        asyncio.get_running_loop().call_later(1.0, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def result(self) -> record.CallerCall:
        """What was written down; the audio is looked through now."""
        found = played_items(bytes(self._playout.audio), self._playout.played)
        self._record.items = found.items
        self._record.foreign_bytes = found.foreign_bytes
        self._playout = Playout()
        return self._record

    # --- what the bridge sends ------------------------------------------------------------------

    def _on_media(self, audio: bytes) -> None:
        if not self._listening and not self._speaking:
            found = frame_tag.read(audio[: frame_tag.FRAME_BYTES])
            if found is not None and found[1] == 0:
                self._reply_begins(found[0])
        self._playout.media(audio)

    def _reply_begins(self, line: int) -> None:
        self._record.first_audio_ns.append((line, time.monotonic_ns()))
        self._listening = True
        self._reply_line = line
        self._reply_ms = self._timestamp_ms()
        self._reply_start = len(self._playout.audio)
        length = len(lines.speech(line).ulaw)
        self._cuts_in = self._random.random() < self._share
        heard = self._random.uniform(0.03, 0.98) if self._cuts_in else 1.0
        self._watch = self._reply_start + int(length * heard)
        self._due = self._record.frames + length // tag.FRAME_BYTES + _PATIENCE_FRAMES

    def _on_clear(self) -> None:
        now_ns = time.monotonic_ns()
        self._record.clears += 1
        cuts = self._record.cuts
        if cuts and not cuts[-1].clear_ns and cuts[-1].onset == self._record.onsets - 1:
            cuts[-1].clear_ns = now_ns
            cuts[-1].clear_ms = self._timestamp_ms()
        for name in self._playout.clear(now_ns):
            self._echo(name)

    # --- the beat -------------------------------------------------------------------------------

    def _on_beat(self, now_ns: int) -> None:
        playout = self._playout
        for name in playout.beat(now_ns):
            self._echo(name)
        flags = 0
        number = self._record.frames
        if playout.position >= self._watch:
            self._watch = _NEVER
            if self._cuts_in:
                flags = self._begin_to_speak(number)
            else:
                self._listening = False
                self._due = number + self._pause(playout.position - self._reply_start)
        elif number >= self._due:
            flags = self._end_speech(number) if self._speaking else self._begin_to_speak(number)
        self._send_frame(flags, number)

    def _pause(self, heard_bytes: int) -> int:
        """How long the caller is quiet, so that the agent has half of the time."""
        speech = sum(_SPEECH_FRAMES) // 2
        return max(_MIN_PAUSE_FRAMES, heard_bytes // tag.FRAME_BYTES - speech - _ANSWER_FRAMES)

    def _begin_to_speak(self, number: int) -> int:
        if self._playout.playing:
            self._record.cuts.append(
                record.Cut(self._record.onsets, self._reply_line, reply_ms=self._reply_ms)
            )
            heard = (self._playout.position - self._reply_start) // tag.FRAME_BYTES
            speech = max(self._random.randrange(*_SPEECH_FRAMES), heard - _ANSWER_FRAMES)
        else:
            speech = self._random.randrange(*_SPEECH_FRAMES)
        self._record.onsets += 1
        self._speaking, self._listening = True, False
        self._watch = _NEVER
        self._due = number + speech
        return tag.ONSET

    def _end_speech(self, number: int) -> int:
        self._speaking = False
        self._due = number + _PATIENCE_FRAMES
        return tag.END

    def _timestamp_ms(self) -> int:
        """Timestamp of the newest frame sent."""
        return self._first_ms + (self._record.frames - 1) * FRAME_MS

    def _send_frame(self, flags: int, number: int) -> None:
        transport, tcp = self._transport, self._tcp
        if transport is None or tcp is None:
            return
        self._sequence += 1
        self._record.frames = number + 1
        timestamp_ms = self._first_ms + number * FRAME_MS
        message = self._messages.write(
            self._sequence, flags, number, timestamp_ms, time.monotonic_ns()
        )
        if tcp.get_write_buffer_size():
            transport.send(WSMsgType.TEXT, message)
            return
        # Nothing waits in the library, so this stays in order, and it costs half as much.
        unsent = frames.send_text(self._fd, message)
        if unsent:
            tcp.write(unsent)

    def _echo(self, name: bytes) -> None:
        if self._transport is None:
            return
        self._sequence += 1
        mark = {
            "event": "mark", "sequenceNumber": str(self._sequence), "streamSid": self._stream_sid,
            "mark": {"name": name.decode()},
        }  # fmt: skip
        self._transport.send(WSMsgType.TEXT, msgspec.json.encode(mark))


class Callers:
    """All calls of the process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._beat = Beat()
        self._calls: set[Call] = set()
        self._finished: list[record.CallerCall] = []
        self._numbers = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start the beat."""
        self._beat.start()

    async def ramp(self, calls: int, ramp_s: float) -> None:
        """Place calls, evenly over the ramp; they last until :meth:`finish`."""
        for _ in range(calls):
            await self._place()
            await asyncio.sleep(ramp_s / calls)

    def churn(self, calls: int, ramp_s: float, call_s: float) -> None:
        """Keep so many calls up, each about so long; a new one follows each that ended."""
        for place in range(calls):
            task = asyncio.create_task(self._one_after_another(ramp_s * place / calls, call_s))
            self._tasks.add(task)

    async def begin(self) -> None:
        """The window begins."""
        self._beat.measure(True)

    async def end(self) -> None:
        """The window ends."""
        self._beat.measure(False)

    async def hang_up(self) -> None:
        """End all calls, a few at a time."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for call in tuple(self._calls):
            call.hang_up()
            await asyncio.sleep(0.005)
        for call in tuple(self._calls):
            await call.ended.wait()
            self._finish(call)

    def record(self) -> record.CallerRecord:
        """What was written down."""
        return record.CallerRecord(self._finished, record.Lag(self._beat.late_us.tobytes()))

    @property
    def placed(self) -> int:
        """Calls so far."""
        return self._numbers

    async def _place(self) -> Call | None:
        number, self._numbers = self._numbers, self._numbers + 1
        call = Call(self._plan, number % tag.MAX_CALLS, self._beat)
        try:
            await ws_connect(lambda: call, self._plan.url)
        except (OSError, WSError):
            refused = call.result()
            refused.ended = "refused"
            self._finished.append(refused)
            return None
        self._calls.add(call)
        return call

    async def _one_after_another(self, wait_s: float, call_s: float) -> None:
        await asyncio.sleep(wait_s)
        source = random.Random(f"{self._plan.seed}/{wait_s}/churn")
        while not self._stopping:
            call = await self._place()
            if call is None:
                await asyncio.sleep(1.0)
                continue
            try:
                async with asyncio.timeout(call_s * source.uniform(0.5, 1.5)):
                    await call.ended.wait()
            except TimeoutError:
                call.hang_up()
            await call.ended.wait()
            self._finish(call)

    def _finish(self, call: Call) -> None:
        self._calls.discard(call)
        self._finished.append(call.result())


def _only_others(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), WSError):
        loop.default_exception_handler(context)


async def run(args: argparse.Namespace) -> None:
    """Place the calls and do what the parent says."""
    for line in range(len(lines.names())):
        lines.speech(line)
    gc.collect()
    gc.freeze()
    # A bridge that closes twice, or breaks off, is counted; it is not worth a line each.
    logging.getLogger("picows").setLevel(logging.CRITICAL)
    asyncio.get_running_loop().set_exception_handler(_only_others)
    plan = Plan(args.url, args.run, args.seed, args.barge_ins)
    callers = Callers(plan)
    callers.start()

    async def finish() -> None:
        await callers.hang_up()
        record.write(args.out, callers.record())

    if args.call_seconds:
        callers.churn(args.calls, args.ramp, args.call_seconds)
        await asyncio.sleep(args.ramp)
    else:
        await callers.ramp(args.calls, args.ramp)
    control.say(ready=callers.placed)
    await control.obey({"begin": callers.begin, "end": callers.end, "finish": finish})


def main() -> None:
    """Command line of the process."""
    parser = argparse.ArgumentParser(description="Twilio's end of many calls")
    parser.add_argument("url", help="the bridge's media socket, ws://HOST:PORT/twilio/media")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--ramp", type=float, default=2.0, help="seconds to place them in")
    parser.add_argument("--call-seconds", type=float, default=0.0, help="0: until the end")
    parser.add_argument("--barge-ins", type=float, default=0.6, help="share of the agent's items")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", type=int, default=1, help="a number for the run's call SIDs")
    parser.add_argument("--out", type=Path, required=True, help="where the record goes")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
