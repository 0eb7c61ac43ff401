"""One Realtime session at the model's end, as a pure machine in virtual time.

Feed it client events (:meth:`Engine.receive`) and time (:meth:`Engine.advance`), then collect the server
events (:meth:`Engine.take`). ``now`` is the session's age in whole ms and must not go backwards.

Rules, with the sections of the protocol notes they come from:

1. ``session.created`` is first (B.1). An update is merged or refused whole (B.2).
2. Input audio is judged by ``vad.py``; its positions count audio written, not time (B.5). A turn gives
   ``speech_started``, ``speech_stopped``, ``committed``, ``item.added``, ``item.done``, ``response.created`` (B.5 1).
3. A reply comes as ``generation.py`` plans it; the closing events of an item are ``output_audio.done``,
   ``output_audio_transcript.done``, ``content_part.done``, ``conversation.item.done``,
   ``output_item.done``; then ``response.done`` and ``rate_limits.updated`` (B.5 1).
4. Speech during generation cancels the response, some deltas of it still come, its item is
   ``incomplete`` (B.5 2). After generation nothing is cancelled and nothing truncated (B.5 3).
5. ``conversation.item.truncate`` follows B.7; refused truncations change nothing.
6. Transcription of the caller comes on its own time, by item id (B.5 5).
7. At the end of its life the session says ``session_expired`` and closes with 1001 (B.11).
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from simulators.realtime import client_events, generation, session_config
from simulators.realtime.errors import ClientError
from simulators.realtime.recognition import recognise
from simulators.realtime.script import AgentScript, CallTool, Hearing, Reply, Speak
from simulators.realtime.session_truth import (
    AgentItem,
    CallerItem,
    Refusal,
    SessionTruth,
    SpeechDetected,
    Truncation,
)
from simulators.realtime.vad import SpeechStarted, Vad
from simulators.realtime.wire import beta_name, delta_audio, obfuscation
from simulators.speech import spoken
from simulators.speech.g711 import BYTES_PER_MS, ULAW_TO_ALAW, pcm24k_to_ulaw

_APPEND_LIMIT_BYTES = 15 * 1024 * 1024
_COMMIT_LEAST_MS = 100
_STREAMED_TRANSCRIPTION_MS = 640
"""Under gpt-realtime-whisper words come while the caller speaks: looked for this often."""
_TOKENS_LIMIT = 15_000_000
_EXPIRY_TEXT = "Your session hit the maximum duration of 60 minutes."

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Close:
    """The engine wants the socket closed."""

    code: int | None
    """None: reset it, without a close frame."""
    reason: str = ""


@dataclass(slots=True)
class _Item:
    """One item of the conversation."""

    wire: Event
    """As events show it, without audio."""
    truth: AgentItem | None = None
    """For what the model said."""
    input_audio: bytes = b""


@dataclass(slots=True)
class _Output:
    """One item of a response."""

    index: int
    part: Speak | CallTool
    item: _Item
    text: str = ""
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
    cancelled: str | None = None
    """Reason, once the response is being cancelled."""
    cancel_done_ms: int = 0
    tokens_out: int = 0


@dataclass(slots=True)
class _Later:
    """Something the engine does at a time of its own."""

    due_ms: int
    act: Callable[[int], None]


class Engine:
    """One session of the simulated model."""

    def __init__(
        self,
        script: AgentScript,
        *,
        session_id: str = "sess_0001",
        model: str = "gpt-realtime-2.1",
        created_at_s: int = 0,
        may_drop: Callable[[Reply], bool] = lambda reply: True,
    ) -> None:
        """Open the session: ``session.created`` is the first event to take.

        Args:
            script: What the model says.
            session_id: Name of the session; ids of its items and events are derived from it.
            model: The connection's ``model``.
            created_at_s: Unix time, for ``expires_at``.
            may_drop: Asked before a scripted drop; the holder counts them over all sessions.
        """
        self.truth = SessionTruth(session_id)
        self.closing: Close | None = None
        self._script = script
        self._model = model
        self._may_drop = may_drop
        self._tag = session_id.removeprefix("sess_")
        self._counts: dict[str, int] = {}
        self._now_ms = 0
        self._events: list[Event] = []
        self._session = session_config.default_session(
            session_id, model, created_at_s + script.expires_after_ms // 1000
        )
        self._conversation_id = self._new_id("conv")
        self._items: dict[str, _Item] = {}
        self._order: list[str] = []
        self._responses: list[_Response] = []
        self._later: list[_Later] = []

        self._vad = Vad()
        self._vad.configure(self._turn_detection or {})
        self._buffer_from_ms = 0
        """Start of the uncommitted input."""
        self._turn_id: str | None = None
        """Future item of the turn under way."""
        self._turn_start_ms = 0
        self._streamed_words = 0
        self._streamed_until_ms = 0
        self._turns = 0

        self._used: set[int] = set()
        self._latest_input: str | None = None
        self._emit("session.created", session=self._shown_session())

    # --- facts in ----------------------------------------------------------------------------

    def receive(self, message: str | bytes, now: int) -> None:
        """Take a frame of the client."""
        self.advance(now)
        if self.closing is not None:
            return
        event: Event = {}
        try:
            event = client_events.parse(message)
            self._handle(event, now)
        except ClientError as error:
            self._refuse(error, event)

    def advance(self, now: int) -> None:
        """Let time pass up to ``now``.

        Raises:
            ValueError: ``now`` lies in the past.
        """
        if now < self._now_ms:
            raise ValueError(f"now ({now}) is before the last call ({self._now_ms})")
        while self.closing is None:
            due = self.next_due_ms()
            if due is None or due > now:
                break
            self._now_ms = max(self._now_ms, due)
            self._do_next()
        self._now_ms = now

    def next_due_ms(self) -> int | None:
        """When :meth:`advance` next has something to do; None once the session is over."""
        if self.closing is not None:
            return None
        due = self._script.expires_after_ms
        for later in self._later:
            due = min(due, later.due_ms)
        for response in self._responses:
            due = min(due, self._response_due_ms(response))
        return due

    def end(self, how: str) -> None:
        """Note that the socket is gone."""
        if self.truth.ending == "open":
            self.truth.ending = how

    # --- answers out -------------------------------------------------------------------------

    def take(self) -> list[Event]:
        """Server events since the last call, in order."""
        taken, self._events = self._events, []
        return taken

    @property
    def has_events(self) -> bool:
        """There is something to take, or the socket is to be closed."""
        return bool(self._events) or self.closing is not None

    # --- client events ------------------------------------------------------------------------

    def _handle(self, event: Event, now: int) -> None:
        kind = event.get("type")
        if kind == "input_audio_buffer.append" and event.keys() <= {"type", "audio", "event_id"}:
            pass  # Fifty times a second: checked by hand in _append.
        else:
            client_events.check(event)
        counted = str(kind)
        self.truth.client_events[counted] = self.truth.client_events.get(counted, 0) + 1
        match kind:
            case "input_audio_buffer.append":
                self._append(event.get("audio"))
            case "session.update":
                self._update_session(event["session"])
            case "input_audio_buffer.commit":
                self._commit_by_client()
            case "input_audio_buffer.clear":
                self._buffer_from_ms = self._input_ms
                self._turn_id = None
                self._vad.forget()
                self._emit("input_audio_buffer.cleared")
            case "conversation.item.create":
                self._create_item(event["item"], event.get("previous_item_id"))
            case "conversation.item.retrieve":
                self._retrieve(event["item_id"])
            case "conversation.item.truncate":
                self._truncate(event["item_id"], event["audio_end_ms"])
            case "conversation.item.delete":
                self._delete(event["item_id"])
            case "response.create":
                self._create_response(event.get("response") or {})
            case "response.cancel":
                self._cancel_by_client(event.get("response_id"))

    def _refuse(self, error: ClientError, event: Event) -> None:
        kind, event_id = event.get("type"), event.get("event_id")
        self.truth.refusals.append(
            Refusal(
                self._now_ms,
                error.code,
                error.message,
                error.param,
                kind if isinstance(kind, str) else "",
            )
        )
        self._emit(
            "error",
            error={
                "type": "invalid_request_error",
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "event_id": event_id if isinstance(event_id, str) else None,
            },
        )

    def _update_session(self, update: Any) -> None:
        if self._script.names == "beta":
            update = session_config.update_from_beta(update)
        present = any(item.truth is not None and item.truth.audio for item in self._items.values())
        self._session = session_config.merged(
            self._session, update, assistant_audio_present=present
        )
        if self._turn_detection is not None:
            self._vad.configure(self._turn_detection)
        self._emit("session.updated", session=self._shown_session())

    # --- input audio ---------------------------------------------------------------------------

    @property
    def _turn_detection(self) -> Mapping[str, Any] | None:
        detection: Mapping[str, Any] | None = self._session["audio"]["input"]["turn_detection"]
        return detection

    @property
    def _input_ms(self) -> int:
        return len(self.truth.appended) // BYTES_PER_MS

    def _append(self, audio: Any) -> None:
        if not isinstance(audio, str):
            client_events.check({"type": "input_audio_buffer.append", "audio": audio})
            raise AssertionError("audio that is no string is refused by its shape")
        try:
            raw = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise ClientError(
                "invalid_value",
                "Invalid 'audio'. Expected base64-encoded audio bytes but got an invalid value.",
                "audio",
            ) from None
        if len(raw) > _APPEND_LIMIT_BYTES:
            raise ClientError("invalid_value", "Invalid 'audio': more than 15 MiB.", "audio")
        audio_format = self._session["audio"]["input"]["format"]["type"]
        if audio_format == "audio/pcm":
            ulaw = pcm24k_to_ulaw(raw)
        elif audio_format == "audio/pcma":
            ulaw = raw.translate(_ALAW_TO_ULAW)
        else:
            ulaw = raw
        self.truth.appends += 1
        self.truth.appended += ulaw
        for event in self._vad.feed(ulaw, listen=self._turn_detection is not None):
            if isinstance(event, SpeechStarted):
                self._speech_started(event.audio_start_ms)
            else:
                self._speech_stopped(event.audio_end_ms)
        if self._turn_id is not None:
            self._stream_transcription()

    def _speech_started(self, audio_start_ms: int) -> None:
        audio_start_ms = max(audio_start_ms, self._buffer_from_ms)
        self._turn_id = self._new_id("item")
        self._turn_start_ms = audio_start_ms
        self._streamed_words = 0
        self._streamed_until_ms = audio_start_ms
        self._heard(True, audio_start_ms, self._turn_id)
        self._emit(
            "input_audio_buffer.speech_started",
            audio_start_ms=audio_start_ms,
            item_id=self._turn_id,
        )
        if self._turn_detection is not None and self._turn_detection["interrupt_response"]:
            for response in self._active():
                self._cancel(response, "turn_detected")

    def _speech_stopped(self, audio_end_ms: int) -> None:
        turn_id = self._turn_id
        if turn_id is None:
            return
        self._heard(False, audio_end_ms, turn_id)
        self._emit("input_audio_buffer.speech_stopped", audio_end_ms=audio_end_ms, item_id=turn_id)
        self._commit(turn_id, self._turn_start_ms, audio_end_ms)
        if self._turn_detection is not None and self._turn_detection["create_response"]:
            try:
                self._create_response({})
            except ClientError as error:
                self._refuse(error, {})

    def _heard(self, started: bool, audio_ms: int, item_id: str) -> None:
        self.truth.speech.append(SpeechDetected(self._now_ms, started, audio_ms, item_id))

    def _commit_by_client(self) -> None:
        length_ms = self._input_ms - self._buffer_from_ms
        if length_ms < _COMMIT_LEAST_MS:
            raise ClientError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_COMMIT_LEAST_MS}ms of audio, but buffer only has {length_ms:.2f}ms of audio.",
            )
        turn_id = self._turn_id or self._new_id("item")
        self._vad.forget()
        self._commit(turn_id, self._buffer_from_ms, self._input_ms)

    def _commit(self, item_id: str, start_ms: int, end_ms: int) -> None:
        self._turn_id = None
        self._buffer_from_ms = end_ms
        self._emit(
            "input_audio_buffer.committed",
            previous_item_id=self._order[-1] if self._order else None,
            item_id=item_id,
        )
        audio = bytes(self.truth.appended[start_ms * BYTES_PER_MS : end_ms * BYTES_PER_MS])
        item = _Item(
            {
                "id": item_id,
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_audio", "transcript": None}],
            },
            input_audio=audio,
        )
        self._add_item(item)
        self._item_done(item)
        self._turns += 1
        recognised = recognise(audio, self._also_said())
        self._latest_input = recognised
        self.truth.caller_items.append(CallerItem(item_id, start_ms, end_ms, recognised))
        self._transcribe(item_id, recognised, end_ms - start_ms)

    def _also_said(self) -> tuple[str, ...]:
        return tuple(h.text for h in self._script.hearings if h.text is not None)

    # --- transcription of the caller -----------------------------------------------------------

    @property
    def _transcription(self) -> Mapping[str, Any] | None:
        settings: Mapping[str, Any] | None = self._session["audio"]["input"]["transcription"]
        return settings

    @property
    def _streams_transcription(self) -> bool:
        return bool(self._transcription and "realtime" in str(self._transcription["model"]))

    def _stream_transcription(self) -> None:
        """Deltas while the caller still speaks, before the item exists."""
        if not self._streams_transcription or self._turn_id is None:
            return
        if self._input_ms - self._streamed_until_ms < _STREAMED_TRANSCRIPTION_MS:
            return
        self._streamed_until_ms = self._input_ms
        audio = bytes(self.truth.appended[self._turn_start_ms * BYTES_PER_MS :])
        words = recognise(audio, self._also_said()).split()
        for word in words[self._streamed_words :]:
            self._transcription_delta(self._turn_id, " " + word)
        self._streamed_words = max(self._streamed_words, len(words))

    def _transcribe(self, item_id: str, recognised: str, length_ms: int) -> None:
        if self._transcription is None:
            return
        hearing = Hearing()
        if self._turns <= len(self._script.hearings):
            hearing = self._script.hearings[self._turns - 1]
        text = recognised if hearing.text is None else hearing.text
        delay_ms = self._script.transcription_delay_ms
        if hearing.delay_ms is not None:
            delay_ms = hearing.delay_ms
        streamed = self._streamed_words if self._streams_transcription else 0
        self._streamed_words = 0

        def finish(now: int) -> None:
            if hearing.failure is not None:
                self._emit(
                    "conversation.item.input_audio_transcription.failed",
                    item_id=item_id,
                    content_index=0,
                    error={
                        "type": "server_error",
                        "code": hearing.failure,
                        "message": f"Input transcription failed for item '{item_id}'.",
                        "param": None,
                    },
                )
                return
            for word in text.split()[streamed:]:
                self._transcription_delta(item_id, " " + word)
            if item_id in self._items:
                self._items[item_id].wire["content"][0]["transcript"] = text
            self._emit(
                "conversation.item.input_audio_transcription.completed",
                item_id=item_id,
                content_index=0,
                transcript=text,
                usage=self._transcription_usage(text, length_ms),
            )

        self._at(self._now_ms + delay_ms, finish)

    def _transcription_delta(self, item_id: str, delta: str) -> None:
        self._emit(
            "conversation.item.input_audio_transcription.delta",
            item_id=item_id,
            content_index=0,
            delta=delta,
            obfuscation=obfuscation(delta),
        )

    def _transcription_usage(self, text: str, length_ms: int) -> Event:
        if self._transcription is not None and "whisper" in str(self._transcription["model"]):
            return {"type": "duration", "seconds": -(-length_ms // 1000)}
        audio_tokens, output = length_ms // 100, len(generation.tokens(text))
        return {
            "type": "tokens",
            "total_tokens": audio_tokens + output,
            "input_tokens": audio_tokens,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio_tokens},
            "output_tokens": output,
        }

    # --- items ---------------------------------------------------------------------------------

    def _create_item(self, wire: Event, previous: str | None) -> None:
        item_id = wire.get("id") or self._new_id("item")
        if item_id in self._items:
            raise ClientError(
                "invalid_value",
                f"Error adding item: an item with id '{item_id}' already exists.",
                "item.id",
            )
        if previous not in (None, "root") and previous not in self._items:
            raise ClientError(
                "invalid_value",
                f"Error adding item: the previous item with id '{previous}' does not exist.",
                "previous_item_id",
            )
        shown: Event = {"id": item_id, "type": wire["type"]}
        if wire["type"] == "message":
            shown |= {"status": "completed", "role": wire["role"]}
            shown["content"] = [
                {k: v for k, v in content.items() if k != "audio"} for content in wire["content"]
            ]
            text = " ".join(str(content.get("text", "")) for content in wire["content"])
            self.truth.seeded.append((wire["role"], text))
            if wire["role"] == "user":
                self._latest_input = text
            elif wire["role"] == "assistant":
                self._mark_used(text)
        elif wire["type"] == "function_call":
            shown |= {
                "status": "completed",
                "name": wire["name"],
                "call_id": wire.get("call_id") or self._new_id("call"),
                "arguments": wire["arguments"],
            }
        else:
            shown |= {"call_id": wire["call_id"], "output": wire["output"]}
            self.truth.tool_outputs.append((wire["call_id"], wire["output"]))
            self._latest_input = wire["output"]
        item = _Item(shown)
        self._add_item(item, previous)
        self._item_done(item)

    def _mark_used(self, said: str) -> None:
        """A reply that an earlier session has begun to say is not said again."""
        said = " ".join(said.split()).rstrip(" .-…")
        for index, reply in enumerate(self._script.replies):
            text = " ".join(p.text for p in reply.parts if isinstance(p, Speak))
            if said and text.startswith(said):
                self._used.add(index)

    def _retrieve(self, item_id: str) -> None:
        item = self._items.get(item_id)
        if item is None:
            raise ClientError(
                "item_retrieve_invalid_item_id",
                f"Error retrieving item: the item with id '{item_id}' does not exist.",
                "item_id",
            )
        wire = dict(item.wire)
        audio = item.input_audio
        if item.truth is not None:
            end = item.truth.truncated_ms
            audio = bytes(item.truth.audio[: None if end is None else end * BYTES_PER_MS])
        if audio and wire.get("content"):
            encoded = base64.b64encode(audio).decode("ascii")
            wire["content"] = [{**wire["content"][0], "audio": encoded}]
        self._emit("conversation.item.retrieved", item=wire)

    def _truncate(self, item_id: str, audio_end_ms: int) -> None:
        try:
            self._judge_truncation(item_id, audio_end_ms)
        except ClientError as error:
            self.truth.truncations.append(
                Truncation(self._now_ms, item_id, audio_end_ms, error.message)
            )
            raise
        self.truth.truncations.append(Truncation(self._now_ms, item_id, audio_end_ms, None))
        item = self._items[item_id]
        if item.truth is None:
            raise AssertionError("only the model's own items pass the judgement")
        item.truth.truncated_ms = audio_end_ms
        for content in item.wire["content"]:
            content.pop("transcript", None)
        self._emit(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=0,
            audio_end_ms=audio_end_ms,
        )

    def _judge_truncation(self, item_id: str, audio_end_ms: int) -> None:
        item = self._items.get(item_id)
        if item is None:
            raise ClientError(
                "item_truncate_invalid_item_id",
                f"Error truncating item: the item with id '{item_id}' does not exist.",
                "item_id",
            )
        if item.truth is None or not item.truth.audio:
            raise ClientError(
                "unsupported_content_type", "Only model output audio messages can be truncated"
            )
        exists_ms = len(item.truth.audio) / BYTES_PER_MS
        if item.truth.truncated_ms is not None:
            exists_ms = item.truth.truncated_ms
        if audio_end_ms > exists_ms:
            shown = f"{exists_ms:.0f}" if exists_ms == int(exists_ms) else f"{exists_ms:.2f}"
            raise ClientError(
                "invalid_value",
                f"Audio content of {shown}ms is already shorter than {audio_end_ms}ms",
                "audio_end_ms",
            )

    def _delete(self, item_id: str) -> None:
        item = self._items.pop(item_id, None)
        if item is None:
            raise ClientError(
                "item_delete_invalid_item_id",
                f"Error deleting item: the item with id '{item_id}' does not exist.",
                "item_id",
            )
        self._order.remove(item_id)
        self.truth.deletions.append(item_id)
        if item.truth is not None:
            item.truth.deleted = True
        self._emit("conversation.item.deleted", item_id=item_id)

    def _add_item(self, item: _Item, previous: str | None = None) -> None:
        item_id = item.wire["id"]
        if previous == "root":
            self._order.insert(0, item_id)
        elif previous is not None:
            self._order.insert(self._order.index(previous) + 1, item_id)
        else:
            self._order.append(item_id)
        self._items[item_id] = item
        self._emit(
            "conversation.item.added",
            previous_item_id=self._previous(item_id),
            item=_copied(item.wire),
        )

    def _item_done(self, item: _Item) -> None:
        item_id = item.wire["id"]
        if self._script.names == "beta" or item_id not in self._items:
            return
        previous = self._previous(item_id)
        if previous is not None and previous == self._order[0]:
            previous = None  # A quirk of the live service, recorded 17 times of 17.
        self._emit("conversation.item.done", previous_item_id=previous, item=_copied(item.wire))

    def _previous(self, item_id: str) -> str | None:
        at = self._order.index(item_id)
        return self._order[at - 1] if at else None

    # --- responses -----------------------------------------------------------------------------

    def _active(self) -> list[_Response]:
        """Responses that hold the default conversation."""
        return [r for r in self._responses if r.in_conversation and r.cancelled is None]

    def _create_response(self, options: Event) -> None:
        in_conversation = options.get("conversation", "auto") == "auto"
        active = self._active()
        if in_conversation and active:
            raise ClientError(
                "conversation_already_has_active_response",
                "Conversation already has an active response in progress: "
                f"{active[0].wire['id']}. Wait until the response is finished before creating "
                "a new one.",
            )
        reply = self._next_reply()
        modalities = options.get("output_modalities", self._session["output_modalities"])
        output = {**self._session["audio"]["output"], **options.get("audio", {}).get("output", {})}
        speaks = modalities == ["audio"]
        wire: Event = {
            "object": "realtime.response",
            "id": self._new_id("resp"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": self._conversation_id if in_conversation else None,
            "output_modalities": modalities,
            "max_output_tokens": options.get(
                "max_output_tokens", self._session["max_output_tokens"]
            ),
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
            "usage": None,
            "metadata": options.get("metadata"),
        }
        response = _Response(
            wire,
            reply,
            self._now_ms,
            output["format"]["type"],
            speaks,
            in_conversation,
            deque(generation.plan(reply, self._script, audio=speaks)),
        )
        self._responses.append(response)
        self._emit("response.created", response=_copied(wire))

    def _next_reply(self) -> Reply:
        """The first unused reply for the latest input; without input, simply the next."""
        latest, self._latest_input = self._latest_input, None
        unused = [(i, r) for i, r in enumerate(self._script.replies) if i not in self._used]
        if not latest:
            candidates = unused
        else:
            matching = [
                (i, r) for i, r in unused if r.when and r.when.casefold() in latest.casefold()
            ]
            candidates = matching or [(i, r) for i, r in unused if r.when is None]
        if not candidates:
            return self._script.fallback
        index, reply = candidates[0]
        self._used.add(index)
        return reply

    def _cancel_by_client(self, response_id: str | None) -> None:
        active = [
            r
            for r in self._responses
            if r.cancelled is None and (response_id is None or r.wire["id"] == response_id)
        ]
        if not active:
            raise ClientError(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
        self._cancel(active[0], "client_cancelled")

    def _cancel(self, response: _Response, reason: str) -> None:
        """Stop generating; some deltas are on their way already."""
        response.cancelled = reason
        response.cancel_done_ms = self._now_ms + self._script.cancel_ms
        audio = [s for s in response.steps if s.kind == "audio" and s.part in response.outputs]
        stragglers = audio[: self._script.stragglers]
        response.steps = deque(
            generation.Step(
                self._now_ms - response.began_ms, s.kind, s.part, s.text, s.start_byte, s.end_byte
            )
            for s in stragglers
        )

    def _response_due_ms(self, response: _Response) -> int:
        if response.steps:
            return response.began_ms + response.steps[0].due_ms
        return response.cancel_done_ms

    def _do_next(self) -> None:
        """Do the one thing that is due first."""
        now = self._now_ms
        if now >= self._script.expires_after_ms:
            self._expire()
            return
        for later in sorted(self._later, key=lambda entry: entry.due_ms):
            if later.due_ms <= now:
                self._later.remove(later)
                later.act(now)
                return
        for response in self._responses:
            if self._response_due_ms(response) <= now:
                if response.steps:
                    self._step(response, response.steps.popleft())
                else:
                    self._finish(response, "cancelled", response.cancelled)
                return
        raise AssertionError("advance() calls only when something is due")

    def _step(self, response: _Response, step: generation.Step) -> None:
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
                self._close_output(response, response.outputs[step.part], "completed")
            case "fail":
                failure = response.reply.failure
                if failure is None:
                    raise AssertionError("a plan fails only where its reply says so")
                self._finish(response, failure.status, failure.code)
            case "drop":
                drop = response.reply.drop
                if drop is not None and self._may_drop(response.reply):
                    self.truth.ending = "dropped"
                    self.closing = Close(drop.close_code, "dropped by the script")
            case "done":
                self._finish(response, "completed", None)

    def _open(self, response: _Response, part_index: int) -> None:
        part = response.reply.parts[part_index]
        item_id = self._new_id("item")
        wire: Event = {"id": item_id}
        truth = None
        if isinstance(part, CallTool):
            wire |= {
                "type": "function_call",
                "status": "in_progress",
                "name": part.name,
                "call_id": self._new_id("call"),
                "arguments": "",
            }
        else:
            wire |= {
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            if self._model.startswith("gpt-realtime-2") and self._script.names == "ga":
                last = part_index + 1 == len(response.reply.parts)
                wire["phase"] = "final_answer" if last else "commentary"
            speech = spoken(part.text)
            truth = AgentItem(
                item_id,
                response.wire["id"],
                part.text,
                [(w.text, w.start_ms, w.end_ms) for w in speech.words],
            )
            self.truth.agent_items.append(truth)
        output = _Output(len(response.outputs), part, _Item(wire, truth))
        response.outputs[part_index] = output
        self._emit(
            "response.output_item.added",
            response_id=response.wire["id"],
            output_index=output.index,
            item=_copied(wire),
        )
        if response.in_conversation:
            self._add_item(output.item)
        if isinstance(part, Speak):
            kind = {"type": "audio", "transcript": ""} if response.speaks else _EMPTY_TEXT
            self._emit(
                "response.content_part.added", **self._place(response, output), part=dict(kind)
            )

    @staticmethod
    def _place(response: _Response, output: _Output) -> Event:
        return {
            "response_id": response.wire["id"],
            "item_id": output.item.wire["id"],
            "output_index": output.index,
            "content_index": 0,
        }

    def _text(self, response: _Response, output: _Output, token: str) -> None:
        output.text += token
        response.tokens_out += 1
        if output.item.truth is not None:
            output.item.truth.text = output.text
        name = "response.output_audio_transcript.delta"
        if not response.speaks:
            name = "response.output_text.delta"
        self._emit(
            name, **self._place(response, output), delta=token, obfuscation=obfuscation(token)
        )

    def _audio(self, response: _Response, output: _Output, step: generation.Step) -> None:
        truth = output.item.truth
        if truth is None or not isinstance(output.part, Speak):
            raise AssertionError("only messages have audio")
        ulaw = spoken(output.part.text).ulaw[step.start_byte : step.end_byte]
        self.truth.sent_order.append(
            (truth.item_id, len(truth.audio), len(truth.audio) + len(ulaw))
        )
        truth.audio += ulaw
        delta = delta_audio(output.part.text, step.start_byte, step.end_byte, response.audio_format)
        self._emit("response.output_audio.delta", **self._place(response, output), delta=delta)

    def _arguments(self, response: _Response, output: _Output, piece: str) -> None:
        output.text += piece
        response.tokens_out += 1
        wire = output.item.wire
        self._emit(
            "response.function_call_arguments.delta",
            response_id=response.wire["id"],
            item_id=wire["id"],
            output_index=output.index,
            call_id=wire["call_id"],
            delta=piece,
            obfuscation=obfuscation(piece),
        )

    def _close_output(self, response: _Response, output: _Output, status: Any) -> None:
        if output.closed:
            return
        output.closed = True
        wire = output.item.wire
        wire["status"] = status
        if isinstance(output.part, CallTool):
            wire["arguments"] = output.text
            self._emit(
                "response.function_call_arguments.done",
                response_id=response.wire["id"],
                item_id=wire["id"],
                output_index=output.index,
                call_id=wire["call_id"],
                name=wire["name"],
                arguments=output.text,
            )
        else:
            self._close_content(response, output)
            if output.item.truth is not None:
                output.item.truth.status = status
        self._item_done(output.item)
        self._emit(
            "response.output_item.done",
            response_id=response.wire["id"],
            output_index=output.index,
            item=_copied(wire),
        )

    def _close_content(self, response: _Response, output: _Output) -> None:
        place = self._place(response, output)
        truncated = output.item.truth is not None and output.item.truth.truncated_ms is not None
        if response.speaks:
            self._emit("response.output_audio.done", **place)
            self._emit("response.output_audio_transcript.done", **place, transcript=output.text)
            part = {"type": "audio", "transcript": output.text}
            content = {"type": "output_audio"}
            if not truncated:
                content["transcript"] = output.text
        else:
            self._emit("response.output_text.done", **place, text=output.text)
            part = {"type": "text", "text": output.text}
            content = {"type": "output_text", "text": output.text}
        self._emit("response.content_part.done", **place, part=part)
        output.item.wire["content"] = [content]

    def _finish(self, response: _Response, status: str, reason: str | None) -> None:
        for output in response.outputs.values():
            self._close_output(
                response, output, "completed" if status == "completed" else "incomplete"
            )
        self._responses.remove(response)
        details: Event | None = None
        if status in ("cancelled", "incomplete"):
            details = {"type": status, "reason": reason}
        elif status == "failed":
            message = response.reply.failure.message if response.reply.failure else ""
            details = {
                "type": "failed",
                "error": {"type": "server_error", "code": reason, "message": message},
            }
        ordered = sorted(response.outputs.values(), key=lambda output: output.index)
        usage = self._usage(response)
        response.wire |= {
            "status": status,
            "status_details": details,
            "output": [_copied(output.item.wire) for output in ordered],
            "usage": usage,
        }
        self.truth.responses.append((response.wire["id"], status, reason))
        self._emit("response.done", response=_copied(response.wire))
        self._emit(
            "rate_limits.updated",
            rate_limits=[
                {
                    "name": "tokens",
                    "limit": _TOKENS_LIMIT,
                    "remaining": _TOKENS_LIMIT - usage["total_tokens"],
                    "reset_seconds": round(usage["total_tokens"] / 250_000, 3),
                }
            ],
        )

    def _usage(self, response: _Response) -> Event:
        """Tokens by the documented rates: 50 ms of the model's audio, 100 ms of the caller's."""
        audio_ms = sum(
            o.item.truth.generated_ms
            for o in response.outputs.values()
            if o.item.truth is not None and response.speaks
        )
        audio_out = -(-audio_ms // 50)
        audio_in = sum(
            len(item.input_audio) // (100 * BYTES_PER_MS) for item in self._items.values()
        )
        text_in = len(generation.tokens(self._session["instructions"]))
        return {
            "total_tokens": audio_in + text_in + audio_out + response.tokens_out,
            "input_tokens": audio_in + text_in,
            "output_tokens": audio_out + response.tokens_out,
            "input_token_details": {
                "text_tokens": text_in,
                "audio_tokens": audio_in,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": {
                    "text_tokens": 0,
                    "audio_tokens": 0,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {
                "text_tokens": response.tokens_out,
                "audio_tokens": audio_out,
            },
        }

    def _expire(self) -> None:
        self._emit(
            "error",
            error={
                "type": "invalid_request_error",
                "code": "session_expired",
                "message": _EXPIRY_TEXT,
                "param": None,
                "event_id": None,
            },
        )
        self.truth.ending = "expired"
        self.closing = Close(1001, _EXPIRY_TEXT)

    # --- small things --------------------------------------------------------------------------

    def _at(self, due_ms: int, act: Callable[[int], None]) -> None:
        self._later.append(_Later(due_ms, act))

    def _shown_session(self) -> Event:
        if self._script.names == "beta":
            return session_config.session_to_beta(self._session)
        return dict(_copied(self._session))

    def _new_id(self, kind: str) -> str:
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._tag}{number:04d}"

    def _emit(self, kind: str, **body: Any) -> None:
        if self._script.names == "beta":
            kind = beta_name(kind)
        self._events.append({"type": kind, "event_id": self._new_id("event"), **body})


_EMPTY_TEXT = {"type": "text", "text": ""}


def _alaw_to_ulaw() -> bytes:
    """µ-law byte of each A-law byte: the one whose own A-law form is that, or else near it."""
    table = bytearray(256)
    for ulaw in range(256):
        table[ULAW_TO_ALAW[ulaw]] = ulaw
    known = set(ULAW_TO_ALAW)
    for alaw in range(256):
        if alaw not in known:
            table[alaw] = table[alaw ^ 0x01]
    return bytes(table)


_ALAW_TO_ULAW = _alaw_to_ulaw()


def _copied(value: Any) -> Any:
    """A copy of a JSON value, deep, so that an event keeps what was true when it was sent."""
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_copied(v) for v in value]
    return value
