"""One response of the scripted model: a line, piece by piece when each is due, and what is around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from bench.load import lines, record


class Socket(Protocol):
    """Where a response goes: its session."""

    def send(self, event: Mapping[str, object]) -> None:
        """Send one event, with an id."""

    def send_raw(self, data: bytes) -> None:
        """Send what is JSON already."""

    def response_ended(self) -> None:
        """The response under way has come to its end."""


class Response:
    """One response under way."""

    def __init__(
        self,
        session: Socket,
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
        self._session.response_ended()
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
