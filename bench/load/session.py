"""One session at the scripted model: what a bridge sends is counted, and answered as the API does."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from bench.load import lines, record, tag
from bench.load.frames import AppendedAudio
from bench.load.received import Received, Window
from bench.load.response import Response

PREFIX_PADDING_MS = 300
"""What the bundled agent asks for: ``audio_start_ms`` lies so far before the onset."""

THINKING_S = 0.25
"""From the end of the caller's speech to ``response.created``; the lines add their own delay."""

_FRAME_MS = 20


class Sessions:
    """What the sessions of a process share, and what they write down.

    Args:
        seed: Of the order of lines.
        bare: The far end is a blind relay: Twilio's messages come and go.
    """

    def __init__(self, *, seed: int, bare: bool) -> None:
        self.seed = seed
        self.bare = bare
        self.window = Window()
        self.open: set[Session] = set()
        self.finished: list[record.ModelCall] = []
        self._ids = 0

    def new_id(self, kind: str) -> str:
        """Unique in the run."""
        self._ids += 1
        return f"{kind}_{self._ids:012x}"

    def records(self) -> list[record.ModelCall]:
        """What was written down, of ended sessions and of those still open."""
        return self.finished + [session.close() for session in self.open]


class Session(WSListener):
    """One Realtime session."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._loop = asyncio.get_running_loop()
        self._bare = sessions.bare
        self._call = record.ModelCall(call=-1)
        self._received = Received(sessions.window)
        self._audio = AppendedAudio()
        self._last_item: str | None = None
        self._user_item = ""
        self._response: Response | None = None
        self._wish: asyncio.TimerHandle | None = None
        """The response that voice detection will create."""
        self._lines: list[int] = []
        self._random = random.Random(
            f"{sessions.seed}/{len(sessions.finished) + len(sessions.open)}"
        )
        self._items: dict[str, record.SpokenItem] = {}
        self._transport: WSTransport | None = None

    # --- the socket -----------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Say hello first, as the API does."""
        self._transport = transport
        self._sessions.open.add(self)
        if not self._bare:
            self.send({"type": "session.created", "session": self._session({})})

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The bridge has gone."""
        self._transport = None
        self._stop()
        self._sessions.open.discard(self)
        self._sessions.finished.append(self.close())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One client event."""
        kind = frame.msg_type
        if kind is WSMsgType.TEXT:
            data = frame.get_payload_as_bytes()
            if self._bare:
                self._bare_message(data)
                return
            at = self._audio.find(data)
            if at >= 0:
                self._append(data, at)
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
                msgspec.json.encode({"event_id": self._sessions.new_id("event"), **event}),
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
        if data.startswith(b'"', at + tag.FRAME_CHARS):
            found = tag.read_one(data, at)
            if found is not None:
                self._received.take(found, now_ns)
                if found[0]:
                    self._flags(found[0])
                return
        found_tags, foreign_bytes = tag.read_all(data[at : data.index(b'"', at)])
        self._call.foreign_bytes += foreign_bytes
        self._received.n_bytes += foreign_bytes
        for found in found_tags:
            self._received.take(found, now_ns)
            self._flags(found[0])

    def _flags(self, flags: int) -> None:
        """What voice detection does with a frame."""
        if flags & tag.ONSET:
            # Voice detection is not in step with the caller's frames.
            self._loop.call_later(self._random.uniform(0, 0.02), self._speech_started)
        if flags & tag.END:
            self._speech_stopped()

    # --- voice detection ------------------------------------------------------------------------

    def _speech_started(self) -> None:
        self._user_item = self._sessions.new_id("item")
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
            self._committed(self._user_item or self._sessions.new_id("item"))
        elif kind == "conversation.item.create":
            item = {"id": self._sessions.new_id("item"), **event["item"]}
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
            "id": self._sessions.new_id("sess"),
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
        item = record.SpokenItem(self._sessions.new_id("item"), self._lines.pop())
        self._call.items.append(item)
        self._items[item.item_id] = item
        delta_ms = lines.DELTAS_MS[max(0, self._received.call) % len(lines.DELTAS_MS)]
        before, self._last_item = self._last_item, item.item_id
        self._response = Response(self, item, before, delta_ms, self._bare, self._sessions.new_id)

    def response_ended(self) -> None:
        """The response under way has come to its end."""
        self._response = None

    def _stop(self) -> None:
        if self._wish is not None:
            self._wish.cancel()
        if self._response is not None:
            self._response.forget()
