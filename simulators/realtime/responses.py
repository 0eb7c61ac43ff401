"""The model's side of a session: responses, from ``response.created`` to ``response.done``. Pure.

Event orders as recorded (protocol notes B.5): an item opens with ``output_item.added``,
``item.added``, ``content_part.added``; it closes with ``output_audio.done``,
``output_audio_transcript.done``, ``content_part.done``, ``conversation.item.done``,
``output_item.done``; ``rate_limits.updated`` follows ``response.done``. An interrupted response
still sends a few deltas, then closes its items as ``incomplete``.
"""

from __future__ import annotations

import base64
import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from simulators.realtime import generation
from simulators.realtime.conversation import Conversation, Item
from simulators.realtime.errors import ClientError
from simulators.realtime.outbox import Event, Outbox, obfuscation
from simulators.realtime.replies import Replies
from simulators.realtime.script import AgentScript, CallTool, Drop, Reply, Speak
from simulators.realtime.session_config import Settings
from simulators.realtime.session_truth import AgentItem, SessionTruth
from simulators.speech import spoken
from simulators.speech.g711 import BYTES_PER_MS, ULAW_TO_ALAW, ulaw_to_pcm24k

_TOKENS_LIMIT = 15_000_000
"""Tokens a minute, as in the recorded ``rate_limits.updated``."""


@dataclass(slots=True)
class _Output:
    """One item of a response."""

    index: int
    part: Speak | CallTool
    item: Item
    text: str = ""
    """Transcript, text or arguments sent so far."""
    closed: bool = False


@dataclass(slots=True)
class _Response:
    wire: Event
    reply: Reply
    began_ms: int
    audio_format: str
    speaks: bool
    in_conversation: bool
    steps: deque[generation.Step]
    outputs: dict[int, _Output] = field(default_factory=dict)
    """By part of the reply."""
    cancelled: str | None = None
    """Reason, once it is being cancelled."""
    cancel_done_ms: int = 0
    text_tokens: int = 0

    @property
    def id(self) -> str:
        return str(self.wire["id"])

    @property
    def due_ms(self) -> int:
        """When its next step is due."""
        if self.steps:
            return self.began_ms + self.steps[0].due_ms
        return self.cancel_done_ms


class Responses:
    """Generates the responses of one session."""

    def __init__(
        self,
        script: AgentScript,
        settings: Settings,
        outbox: Outbox,
        conversation: Conversation,
        replies: Replies,
        truth: SessionTruth,
        *,
        drop: Callable[[Drop], None],
    ) -> None:
        """Begin with none.

        Args:
            script: Times and faults.
            settings: The session's, as they are at any time.
            outbox: Where events go.
            conversation: Where output becomes items.
            replies: What to say next.
            truth: Where the facts are kept.
            drop: Called when a reply's scripted loss of the connection is reached.
        """
        self._script = script
        self._settings = settings
        self._outbox = outbox
        self._conversation = conversation
        self._replies = replies
        self._truth = truth
        self._drop = drop
        self._responses: list[_Response] = []
        self._conversation_id = outbox.new_id("conv")

    # --- what the client and the caller do -----------------------------------------------------

    def create(self, options: Event) -> None:
        """Begin a response.

        Args:
            options: ``response`` of the client's event, checked; empty for a turn's own response.

        Raises:
            ClientError: Another response holds the conversation.
        """
        in_conversation = options.get("conversation", "auto") == "auto"
        active = self._holding_conversation()
        if in_conversation and active:
            raise ClientError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {active[0].id}. "
                "Wait until the response is finished before creating a new one.",
            )
        reply = self._replies.take_next()
        modalities = options.get("output_modalities", self._settings.output_modalities)
        output = {**self._settings.output, **options.get("audio", {}).get("output", {})}
        limit = options.get("max_output_tokens", self._settings.max_output_tokens)
        speaks = modalities == ["audio"]
        wire: Event = {
            "object": "realtime.response",
            "id": self._outbox.new_id("resp"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": self._conversation_id if in_conversation else None,
            "output_modalities": modalities,
            "max_output_tokens": limit,
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
            "usage": None,
            "metadata": options.get("metadata"),
        }
        steps = deque(generation.plan(reply, self._script, audio=speaks))
        self._responses.append(
            _Response(
                wire,
                reply,
                self._outbox.now_ms,
                output["format"]["type"],
                speaks,
                in_conversation,
                steps,
            )
        )
        self._outbox.emit("response.created", response=wire)

    def cancel(self, response_id: str | None) -> None:
        """Cancel a response for the client.

        Raises:
            ClientError: None is active, or not that one.
        """
        for response in self._responses:
            if response.cancelled is None and response_id in (None, response.id):
                self._stop(response, "client_cancelled")
                return
        raise ClientError(
            "response_cancel_not_active", "Cancellation failed: no active response found"
        )

    def interrupt(self) -> None:
        """Cancel what is being generated because the caller speaks."""
        for response in self._holding_conversation():
            self._stop(response, "turn_detected")

    def _holding_conversation(self) -> list[_Response]:
        return [r for r in self._responses if r.in_conversation and r.cancelled is None]

    def _stop(self, response: _Response, reason: str) -> None:
        """Drop what was planned, but for some deltas that are on their way already."""
        response.cancelled = reason
        response.cancel_done_ms = self._outbox.now_ms + self._script.cancel_ms
        age_ms = self._outbox.now_ms - response.began_ms
        audio = [s for s in response.steps if s.kind == "audio" and s.part in response.outputs]
        response.steps = deque(
            generation.Step(age_ms, s.kind, s.part, s.text, s.start_byte, s.end_byte)
            for s in audio[: self._script.stragglers]
        )

    # --- time ----------------------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """When the next step is due; None while nothing is generated."""
        return min((response.due_ms for response in self._responses), default=None)

    def run_first_step(self) -> None:
        """Do what is due first."""
        response = min(self._responses, key=lambda r: r.due_ms)
        if not response.steps:
            self._finish(response, "cancelled", response.cancelled)
            return
        step = response.steps.popleft()
        match step.kind:
            case "open":
                self._open(response, step.part)
            case "text":
                self._text(response, response.outputs[step.part], step.text)
            case "audio":
                self._audio(response, response.outputs[step.part], step)
            case "arguments":
                self._arguments(response, response.outputs[step.part], step.text)
            case "close":
                self._close(response, response.outputs[step.part], "completed")
            case "fail":
                failure = response.reply.failure
                if failure is None:
                    raise AssertionError("a plan fails only where its reply says so")
                self._finish(response, failure.status, failure.code)
            case "drop":
                if response.reply.drop is not None:
                    self._drop(response.reply.drop)
            case "done":
                self._finish(response, "completed", None)

    # --- items of a response -------------------------------------------------------------------

    def _open(self, response: _Response, part_index: int) -> None:
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
        output = _Output(len(response.outputs), part, item)
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

    def _text(self, response: _Response, output: _Output, token: str) -> None:
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

    def _audio(self, response: _Response, output: _Output, step: generation.Step) -> None:
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

    def _arguments(self, response: _Response, output: _Output, piece: str) -> None:
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

    def _close(self, response: _Response, output: _Output, status: str) -> None:
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

    def _close_content(self, response: _Response, output: _Output) -> None:
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

    # --- the end of a response -----------------------------------------------------------------

    def _finish(self, response: _Response, status: str, reason: str | None) -> None:
        for output in response.outputs.values():
            self._close(response, output, "completed" if status == "completed" else "incomplete")
        self._responses.remove(response)
        ordered = sorted(response.outputs.values(), key=lambda output: output.index)
        usage = self._usage(response)
        response.wire |= {
            "status": status,
            "status_details": _details(status, reason, response.reply),
            "output": [output.item.wire for output in ordered],
            "usage": usage,
        }
        self._truth.responses.append((response.id, status, reason))
        self._outbox.emit("response.done", response=response.wire)
        total = usage["total_tokens"]
        limit = {
            "name": "tokens",
            "limit": _TOKENS_LIMIT,
            "remaining": _TOKENS_LIMIT - total,
            "reset_seconds": round(total * 60 / _TOKENS_LIMIT, 3),
        }
        self._outbox.emit("rate_limits.updated", rate_limits=[limit])

    def _usage(self, response: _Response) -> Event:
        """Tokens by the documented rates: 50 ms of the model's audio, 100 ms of the caller's."""
        audio_ms = sum(
            output.item.truth.generated_ms
            for output in response.outputs.values()
            if output.item.truth is not None
        )
        audio_out, text_out = -(-audio_ms // 50), response.text_tokens
        audio_in = sum(
            len(item.input_audio) // (100 * BYTES_PER_MS) for item in self._conversation.items
        )
        text_in = len(generation.tokens(self._settings.instructions))
        none_cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": audio_in + text_in + audio_out + text_out,
            "input_tokens": audio_in + text_in,
            "output_tokens": audio_out + text_out,
            "input_token_details": {
                "text_tokens": text_in,
                "audio_tokens": audio_in,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": none_cached,
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }


def _place(response: _Response, output: _Output) -> Event:
    """The fields that say where a piece of content belongs."""
    return {
        "response_id": response.id,
        "item_id": output.item.id,
        "output_index": output.index,
        "content_index": 0,
    }


def _details(status: str, reason: str | None, reply: Reply) -> Event | None:
    """``status_details`` (B.8)."""
    if status == "completed":
        return None
    if status != "failed":
        return {"type": status, "reason": reason}
    message = "" if reply.failure is None else reply.failure.message
    error = {"type": "server_error", "code": reason, "message": message}
    return {"type": "failed", "error": error}


@functools.lru_cache(maxsize=8192)
def _encoded(text: str, start_byte: int, end_byte: int, audio_format: str) -> str:
    """A stretch of a line's speech in base64, made once however many sessions say it."""
    raw = spoken(text).ulaw[start_byte:end_byte]
    if audio_format == "audio/pcma":
        raw = raw.translate(ULAW_TO_ALAW)
    elif audio_format == "audio/pcm":
        raw = ulaw_to_pcm24k(raw)
    return base64.b64encode(raw).decode("ascii")
