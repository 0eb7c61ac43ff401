"""The items of a response: how they open, fill and close, as recorded (protocol notes B.5). Pure.

An item opens with ``output_item.added``, ``item.added``, ``content_part.added``; it closes with
``output_audio.done``, ``output_audio_transcript.done``, ``content_part.done``,
``conversation.item.done``, ``output_item.done``.
"""

from __future__ import annotations

import base64
import functools
from collections import deque
from dataclasses import dataclass, field

from simulators.realtime import generation
from simulators.realtime.conversation import Conversation, Item
from simulators.realtime.outbox import Outbox
from simulators.realtime.script import CallTool, Reply, Speak
from simulators.realtime.session_config import Settings
from simulators.realtime.session_truth import AgentItem, Generation, SessionTruth
from simulators.realtime.wire import Event, obfuscation
from simulators.speech import spoken
from simulators.speech.g711 import ULAW_TO_ALAW, ulaw_to_pcm24k


@dataclass(slots=True)
class Output:
    """One item of a response."""

    index: int
    part: Speak | CallTool
    item: Item
    text: str = ""
    """Transcript, text or arguments sent so far."""
    closed: bool = False


@dataclass(slots=True)
class Response:
    """A response under way."""

    wire: Event
    reply: Reply
    truth: Generation
    audio_format: str
    speaks: bool
    in_conversation: bool
    steps: deque[generation.Step]
    outputs: dict[int, Output] = field(default_factory=dict)
    """By part of the reply."""
    cancelled: str | None = None
    """Reason, once it is being cancelled."""
    cancel_done_ms: int = 0
    text_tokens: int = 0

    @property
    def id(self) -> str:
        """Name of the response."""
        return str(self.wire["id"])

    @property
    def due_ms(self) -> int:
        """When its next step is due."""
        if self.steps:
            return self.truth.began_ms + self.steps[0].due_ms
        return self.cancel_done_ms


class OutputItems:
    """Writes the items of one session's responses."""

    def __init__(
        self, settings: Settings, outbox: Outbox, conversation: Conversation, truth: SessionTruth
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._conversation = conversation
        self._truth = truth

    def open(self, response: Response, part_index: int) -> None:
        """Begin the item of one part of the reply."""
        part = response.reply.parts[part_index]
        item = Item({"id": self._outbox.new_id("item")})
        if isinstance(part, CallTool):
            item.wire |= {
                "type": "function_call",
                "status": "in_progress",
                "name": part.name,
                "call_id": self._outbox.new_id("call"),
                "arguments": "",
            }
        else:
            item.wire |= {
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            if self._settings.says_phase:
                last = part_index + 1 == len(response.reply.parts)
                item.wire["phase"] = "final_answer" if last else "commentary"
            words = [(w.text, w.start_ms, w.end_ms) for w in spoken(part.text).words]
            item.truth = AgentItem(item.id, response.id, part.text, words)
            self._truth.agent_items.append(item.truth)
        output = Output(len(response.outputs), part, item)
        response.outputs[part_index] = output
        self._outbox.emit(
            "response.output_item.added",
            response_id=response.id,
            output_index=output.index,
            item=item.wire,
        )
        if response.in_conversation:
            self._conversation.add(item)
        if isinstance(part, Speak):
            empty = {"type": "audio", "transcript": ""}
            if not response.speaks:
                empty = {"type": "text", "text": ""}
            self._outbox.emit("response.content_part.added", **_place(response, output), part=empty)

    def text(self, response: Response, output: Output, token: str) -> None:
        """Send a token of what is said, or written."""
        output.text += token
        response.text_tokens += 1
        if output.item.truth is not None:
            output.item.truth.text = output.text
        name = "response.output_audio_transcript.delta"
        if not response.speaks:
            name = "response.output_text.delta"
        self._outbox.emit(
            name, **_place(response, output), delta=token, obfuscation=obfuscation(token)
        )

    def audio(self, response: Response, output: Output, step: generation.Step) -> None:
        """Send a stretch of its speech."""
        truth = output.item.truth
        if truth is None:
            raise AssertionError("only messages have audio")
        text = truth.planned_text
        ulaw = spoken(text).ulaw[step.start_byte : step.end_byte]
        sent = len(truth.audio)
        self._truth.sent_order.append((truth.item_id, sent, sent + len(ulaw)))
        truth.audio += ulaw
        delta = _encoded(text, step.start_byte, step.end_byte, response.audio_format)
        self._outbox.emit("response.output_audio.delta", **_place(response, output), delta=delta)

    def arguments(self, response: Response, output: Output, piece: str) -> None:
        """Send a piece of a function call's arguments."""
        output.text += piece
        response.text_tokens += 1
        self._outbox.emit(
            "response.function_call_arguments.delta",
            response_id=response.id,
            item_id=output.item.id,
            output_index=output.index,
            call_id=output.item.wire["call_id"],
            delta=piece,
            obfuscation=obfuscation(piece),
        )

    def close(self, response: Response, output: Output, status: str) -> None:
        """End an item that is still open."""
        if output.closed:
            return
        output.closed = True
        wire = output.item.wire
        wire["status"] = status
        if isinstance(output.part, CallTool):
            wire["arguments"] = output.text
            self._outbox.emit(
                "response.function_call_arguments.done",
                response_id=response.id,
                item_id=output.item.id,
                output_index=output.index,
                call_id=wire["call_id"],
                name=wire["name"],
                arguments=output.text,
            )
        else:
            self._close_content(response, output)
        if output.item.truth is not None:
            output.item.truth.status = "completed" if status == "completed" else "incomplete"
        self._conversation.done(output.item)
        self._outbox.emit(
            "response.output_item.done",
            response_id=response.id,
            output_index=output.index,
            item=wire,
        )

    def _close_content(self, response: Response, output: Output) -> None:
        place = _place(response, output)
        text = output.text
        if response.speaks:
            self._outbox.emit("response.output_audio.done", **place)
            self._outbox.emit("response.output_audio_transcript.done", **place, transcript=text)
            part = {"type": "audio", "transcript": text}
            content = {"type": "output_audio", "transcript": text}
            if output.item.truth is not None and output.item.truth.truncated_ms is not None:
                del content["transcript"]  # A truncation has removed it (B.7).
        else:
            self._outbox.emit("response.output_text.done", **place, text=text)
            part = {"type": "text", "text": text}
            content = {"type": "output_text", "text": text}
        self._outbox.emit("response.content_part.done", **place, part=part)
        output.item.wire["content"] = [content]


def _place(response: Response, output: Output) -> Event:
    """The fields that say where a piece of content belongs."""
    return {
        "response_id": response.id,
        "item_id": output.item.id,
        "output_index": output.index,
        "content_index": 0,
    }


@functools.lru_cache(maxsize=8192)
def _encoded(text: str, start_byte: int, end_byte: int, audio_format: str) -> str:
    """A stretch of a line's speech in base64, made once however many sessions say it."""
    raw = spoken(text).ulaw[start_byte:end_byte]
    if audio_format == "audio/pcma":
        raw = raw.translate(ULAW_TO_ALAW)
    elif audio_format == "audio/pcm":
        raw = ulaw_to_pcm24k(raw)
    return base64.b64encode(raw).decode("ascii")
