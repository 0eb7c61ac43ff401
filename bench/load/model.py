"""The Realtime API for figures: many sessions, one cheap process (``python -m bench.load.model``).

What a bridge is sent, and in which order, is as recorded (protocol notes B.5); what it sends is
believed. Voice detection is scripted: a caller's frame says by a flag in its tag that speech begins
or ends with it, so that the time a bridge takes to act on it can be measured to the microsecond.
Each end of the caller's speech, and each ``response.create``, brings the next line.

With ``--bare`` the far end is not a bridge but a blind relay: appended audio comes as Twilio's
frames, and audio and interrupts go out as Twilio's messages.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.load import control, lines, record, tag
from bench.load.clock import Beat
from bench.load.kernel import kernel
from bench.load.received import Received, Window

PREFIX_PADDING_MS = 300
"""What the bundled agent asks for: ``audio_start_ms`` lies so far before the onset."""

THINKING_S = 0.25
"""From the end of the caller's speech to ``response.created``; the lines add their own delay."""

MANY_SESSIONS = 250
"""With more than so many the process naps between its turns."""

NAP_S = 0.002
"""So long: then it reads what has come meanwhile. A model far away is not woken
up on the bridge's account, which on one machine is dearer than the frame that it is for. Frames are
measured when they are read, so they look up to 2 ms later."""

_FRAME_MS = 20
_NEVER = 1 << 62


class Model:
    """All sessions of the process, and what they write down."""

    def __init__(self, *, seed: int, bare: bool) -> None:
        self.seed = seed
        self.bare = bare
        self.beat = Beat()
        self.window = Window()
        compiled = kernel()
        self.receive = compiled.receive if compiled is not None else None
        self.finished: list[record.ModelCall] = []
        self.sessions: set[Session] = set()
        self._ids = 0

    def new_id(self, kind: str) -> str:
        """Unique in the run."""
        self._ids += 1
        return f"{kind}_{self._ids:012x}"

    def accept(self, request: WSUpgradeRequest) -> WSListener:
        """A new session."""
        return Session(self)

    def nap(self) -> None:
        """Sleep between turns, with many sessions. Goes on for as long as the loop runs."""
        loop = asyncio.get_running_loop()
        if len(self.sessions) > MANY_SESSIONS:
            time.sleep(NAP_S)
            loop.call_soon(self.nap)
        else:
            loop.call_later(1.0, self.nap)

    async def begin(self) -> None:
        """The window begins."""
        self.window.end_ns = _NEVER
        self.window.begin_ns = time.monotonic_ns()
        self.beat.measure(True)

    async def end(self) -> None:
        """The window ends."""
        self.window.end_ns = time.monotonic_ns()
        self.beat.measure(False)

    def record(self) -> record.ModelRecord:
        """What was written down, of ended sessions and of those still open."""
        calls = self.finished + [session.close() for session in self.sessions]
        return record.ModelRecord(
            calls=calls,
            forward_us=self.window.forward_us.tobytes(),
            lag=record.Lag(self.beat.late_us.tobytes()),
            begin_ns=self.window.begin_ns,
            end_ns=self.window.end_ns,
        )


class Session(WSListener):
    """One Realtime session."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._bare = model.bare
        self._call = record.ModelCall(call=-1)
        self._received = Received(model.window)
        self._receive = model.receive
        self._last_item: str | None = None
        self._user_item = ""
        self._response: _Response | None = None
        self._wish: asyncio.TimerHandle | None = None
        """The response that voice detection will create."""
        self._lines: list[int] = []
        self._random = random.Random(f"{model.seed}/{len(model.finished) + len(model.sessions)}")
        self._items: dict[str, record.SpokenItem] = {}
        self._transport: WSTransport | None = None

    # --- the socket -----------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Say hello first, as the API does."""
        self._transport = transport
        self._model.sessions.add(self)
        if not self._bare:
            self.send({"type": "session.created", "session": self._session({})})

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The bridge has gone."""
        self._transport = None
        self._stop()
        self._model.sessions.discard(self)
        self._model.finished.append(self.close())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One client event."""
        kind = frame.msg_type
        if kind is WSMsgType.TEXT:
            data = frame.get_payload_as_bytes()
            if self._receive is not None and self._receive(self._received, data):
                return
            if self._bare:
                self._bare_message(data)
            elif data.find(b"input_audio_buffer.append", 0, 100) >= 0:
                self._append(data, data.index(b'"', data.index(b'"audio"') + 7) + 1)
            else:
                self._event(msgspec.json.decode(data))
        elif kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def close(self) -> record.ModelCall:
        """What was written down of this session."""
        received, written = self._received, self._call
        written.call, written.frames = received.call, received.frames
        written.lost = sorted(received.missing)
        written.repeated, written.reordered = received.repeated, received.reordered
        written.strangers = received.strangers
        return written

    def send(self, event: Mapping[str, object]) -> None:
        """Send one event, with an id."""
        if self._transport is not None:
            self._transport.send(
                WSMsgType.TEXT,
                msgspec.json.encode({"event_id": self._model.new_id("event"), **event}),
            )

    def send_raw(self, data: bytes) -> None:
        """Send what is JSON already."""
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, data)

    # --- caller audio ---------------------------------------------------------------------------

    def _bare_message(self, data: bytes) -> None:
        at = data.find(b'"payload":"')
        if at >= 0:
            self._append(data, at + 11)

    def _append(self, data: bytes, at: int) -> None:
        """Take audio: base64 text from ``at`` to the next quote."""
        now_ns = time.monotonic_ns()
        if data[at + tag.FRAME_CHARS : at + tag.FRAME_CHARS + 1] == b'"':
            found = tag.read_one(data, at)
            if found is not None:
                self._frame(found, now_ns)
                return
        found_tags, foreign_bytes = tag.read_all(data[at : data.index(b'"', at)])
        self._call.foreign_bytes += foreign_bytes
        self._received.n_bytes += foreign_bytes
        for found in found_tags:
            self._frame(found, now_ns)

    def _frame(self, found: tag.Tag, now_ns: int) -> None:
        self._received.take(found, now_ns)
        flags = found[0]
        if flags & tag.ONSET:
            # Voice detection is not in step with the caller's frames.
            self._loop.call_later(self._random.uniform(0, 0.02), self._speech_started)
        if flags & tag.END:
            self._speech_stopped()

    # --- voice detection ------------------------------------------------------------------------

    def _speech_started(self) -> None:
        self._user_item = self._model.new_id("item")
        onset_ms = self._received.n_bytes // 8 - _FRAME_MS
        self._call.interrupts_ns.append(time.monotonic_ns())
        if self._bare:
            self.send_raw(b'{"event":"clear","streamSid":""}')
        else:
            self.send(
                {
                    "type": "input_audio_buffer.speech_started",
                    "audio_start_ms": max(0, onset_ms - PREFIX_PADDING_MS),
                    "item_id": self._user_item,
                }
            )
        if self._wish is not None:
            self._wish.cancel()
            self._wish = None
        if self._response is not None:
            self._response.cancel("turn_detected")

    def _speech_stopped(self) -> None:
        if self._bare:
            self._wish = self._loop.call_later(THINKING_S, self._respond)
            return
        self.send(
            {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": self._received.n_bytes // 8,
                "item_id": self._user_item,
            }
        )
        self._committed(self._user_item)
        self._user_item = ""
        self._wish = self._loop.call_later(THINKING_S, self._respond)

    def _committed(self, item_id: str) -> None:
        """The input buffer became a caller's item, and was transcribed at once."""
        before, self._last_item = self._last_item, item_id
        self.send(
            {
                "type": "input_audio_buffer.committed",
                "item_id": item_id,
                "previous_item_id": before,
            }
        )
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        for kind in ("conversation.item.added", "conversation.item.done"):
            self.send({"type": kind, "previous_item_id": before, "item": item})
        self.send(
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": item_id,
                "content_index": 0,
                "transcript": "Hold on a second.",
                "usage": {"type": "duration", "seconds": 1},
            }
        )

    # --- client events --------------------------------------------------------------------------

    def _event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "session.update":
            self.send({"type": "session.updated", "session": self._session(event["session"])})
        elif kind == "response.create":
            if self._response is not None:
                self._refuse(event, "conversation_already_has_active_response", "one is active")
            else:
                self._respond()
        elif kind == "response.cancel":
            if self._response is None:
                self._refuse(event, "response_cancel_not_active", "no active response found")
            else:
                self._response.cancel("client_cancelled")
        elif kind == "conversation.item.truncate":
            self._truncate(event)
        elif kind == "conversation.item.delete":
            self._call.truncations.append(record.Truncation(event["item_id"], -1, True))
            self.send({"type": "conversation.item.deleted", "item_id": event["item_id"]})
        elif kind == "input_audio_buffer.commit":
            self._committed(self._user_item or self._model.new_id("item"))
        elif kind == "conversation.item.create":
            item = {"id": self._model.new_id("item"), **event["item"]}
            for answer in ("conversation.item.added", "conversation.item.done"):
                self.send({"type": answer, "previous_item_id": self._last_item, "item": item})
            self._last_item = item["id"]
        else:
            self._refuse(event, "invalid_value", f"no event of type {kind}")

    def _truncate(self, event: dict[str, Any]) -> None:
        item = self._items.get(event["item_id"])
        wanted_ms = event["audio_end_ms"]
        exists_ms = 0 if item is None else item.audio_bytes // 8
        accepted = item is not None and wanted_ms <= exists_ms
        self._call.truncations.append(record.Truncation(event["item_id"], wanted_ms, accepted))
        if accepted:
            answer = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
            self.send({"type": "conversation.item.truncated", **answer})
        else:
            text = f"Audio content of {exists_ms}ms is already shorter than {wanted_ms}ms"
            self._refuse(event, "invalid_value", text)

    def _refuse(self, event: dict[str, Any], code: str, message: str) -> None:
        self._call.errors.append(f"{event['type']}: {code}: {message}")
        error = {
            "type": "invalid_request_error", "code": code, "message": message, "param": None,
            "event_id": event.get("event_id"),
        }  # fmt: skip
        self.send({"type": "error", "error": error})

    def _session(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": self._model.new_id("sess"),
            "model": "gpt-realtime-2.1",
            "expires_at": int(time.time()) + 3600,
            **wanted,
        }

    # --- responses ------------------------------------------------------------------------------

    def _respond(self) -> None:
        self._wish = None
        if self._transport is None or self._response is not None:
            return
        if not self._lines:
            # Every line once before any comes again: what Twilio's end plays is then told apart.
            self._lines = list(range(len(lines.names())))
            self._random.shuffle(self._lines)
        item = record.SpokenItem(self._model.new_id("item"), self._lines.pop())
        self._call.items.append(item)
        self._items[item.item_id] = item
        delta_ms = lines.DELTAS_MS[max(0, self._received.call) % len(lines.DELTAS_MS)]
        before, self._last_item = self._last_item, item.item_id
        self._response = _Response(self, item, before, delta_ms, self._bare, self._model.new_id)

    def ended(self) -> None:
        """The response under way has come to its end."""
        self._response = None

    def _stop(self) -> None:
        if self._wish is not None:
            self._wish.cancel()
        if self._response is not None:
            self._response.forget()


class _Response:
    """One response under way."""

    def __init__(
        self,
        session: Session,
        item: record.SpokenItem,
        before: str | None,
        delta_ms: int,
        bare: bool,
        new_id: Callable[[str], str],
    ) -> None:
        self._session = session
        self._item = item
        self._bare = bare
        self._id = new_id("resp")
        self._pieces = lines.pieces(item.line, delta_ms)
        self._place = 0
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        ids = (
            f'"response_id":"{self._id}","item_id":"{item.item_id}",'
            f'"output_index":0,"content_index":0,"event_id":"event_{self._id}'
        ).encode()
        self._audio_head = b'{"type":"response.output_audio.delta",' + ids
        self._text_head = b'{"type":"response.output_audio_transcript.delta",' + ids
        if not bare:
            self._open(before)
        self._go_on()

    def _open(self, before: str | None) -> None:
        send = self._session.send
        send({"type": "response.created", "response": self._response("in_progress", None, [])})
        item = self._message("in_progress", [])
        send(self._about("response.output_item.added", item=item))
        send({"type": "conversation.item.added", "previous_item_id": before, "item": item})
        part = {"type": "audio", "transcript": ""}
        send(self._about("response.content_part.added", content=True, part=part))

    def _go_on(self) -> None:
        """Send what is due, then sleep until the next piece is."""
        item = self._item
        now_ms = (self._loop.time() - self._began_s) * 1000
        while self._place < len(self._pieces):
            piece = self._pieces[self._place]
            if piece.due_ms > now_ms:
                self._timer = self._loop.call_at(self._began_s + piece.due_ms / 1000, self._go_on)
                return
            self._place += 1
            item.chars += piece.chars
            if piece.audio:
                item.audio_bytes += piece.audio_bytes
                item.text_at_delta.append(item.chars)
                item.delta_bytes.append(piece.audio_bytes)
                if not item.first_audio_ns:
                    item.first_audio_ns = time.monotonic_ns()
            if self._bare:
                if piece.audio:
                    self._session.send_raw(
                        b'{"event":"media","streamSid":"","media":{"payload":"'
                        + piece.base64
                        + b'"}}'
                    )
                continue
            head = self._audio_head if piece.audio else self._text_head
            self._session.send_raw(b'%b-%d","delta":%b' % (head, self._place, piece.tail))
        item.completed = True
        self._close("completed", None)

    def cancel(self, reason: str) -> None:
        """End it before its end."""
        self.forget()
        self._close("cancelled", {"type": "cancelled", "reason": reason})

    def forget(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _close(self, status: str, details: dict[str, str] | None) -> None:
        self._session.ended()
        if self._bare:
            return
        send = self._session.send
        text = lines.speech(self._item.line).text[: self._item.chars]
        send(self._about("response.output_audio.done", content=True))
        send(self._about("response.output_audio_transcript.done", content=True, transcript=text))
        part = {"type": "audio", "transcript": text}
        send(self._about("response.content_part.done", content=True, part=part))
        content = [{"type": "output_audio", "transcript": text}]
        item = self._message("completed" if details is None else "incomplete", content)
        send({"type": "conversation.item.done", "previous_item_id": None, "item": item})
        send(self._about("response.output_item.done", item=item))
        send({"type": "response.done", "response": self._response(status, details, [item])})
        limit = {"name": "tokens", "limit": 15000000, "remaining": 14999371, "reset_seconds": 0.002}
        send({"type": "rate_limits.updated", "rate_limits": [limit]})

    def _about(self, kind: str, *, content: bool = False, **more: object) -> dict[str, object]:
        event: dict[str, object] = {
            "type": kind,
            "response_id": self._id,
            "output_index": 0,
            **more,
        }
        if content:
            event |= {"item_id": self._item.item_id, "content_index": 0}
        return event

    def _message(self, status: str, content: list[dict[str, str]]) -> dict[str, object]:
        return {
            "id": self._item.item_id, "object": "realtime.item", "type": "message",
            "status": status, "role": "assistant", "content": content,
        }  # fmt: skip

    def _response(
        self, status: str, details: dict[str, str] | None, output: list[dict[str, object]]
    ) -> dict[str, object]:
        done = status != "in_progress"
        audio_tokens = self._item.audio_bytes // 8 // 50
        usage = {
            "total_tokens": 60 + audio_tokens,
            "input_tokens": 50,
            "output_tokens": 10 + audio_tokens,
            "input_token_details": {"text_tokens": 30, "audio_tokens": 20, "cached_tokens": 0},
            "output_token_details": {"text_tokens": 10, "audio_tokens": audio_tokens},
        }  # fmt: skip
        return {
            "object": "realtime.response", "id": self._id, "status": status,
            "status_details": details, "output": output, "usage": usage if done else None,
        }  # fmt: skip


async def serve(listen: str, model: Model, out: Path) -> None:
    """Serve until the parent says ``finish``."""
    host, _, port = listen.rpartition(":")
    for line in range(len(lines.names())):
        for delta_ms in lines.DELTAS_MS:
            lines.pieces(line, delta_ms)
    gc.collect()
    gc.freeze()
    server = await ws_create_server(model.accept, host, int(port))
    model.beat.start()
    model.nap()
    control.say(ready=f"{host}:{server.sockets[0].getsockname()[1]}")

    async def finish() -> None:
        record.write(out, model.record())

    await control.obey({"begin": model.begin, "end": model.end, "finish": finish})
    server.close()


def main() -> None:
    """Command line of the process."""
    parser = argparse.ArgumentParser(description="the Realtime API's end of many calls")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bare", action="store_true", help="the far end is a blind relay")
    parser.add_argument("--out", type=Path, required=True, help="where the record goes")
    args = parser.parse_args()
    uvloop.run(serve(args.listen, Model(seed=args.seed, bare=args.bare), args.out))


if __name__ == "__main__":
    main()
