"""The caller's side of a session: input audio, turns, and their transcription. Pure.

Audio positions count what was written to the buffer, not time (protocol notes B.5). Transcription
runs on its own: in one burst some time after the commit, or, with a realtime transcription model,
word by word while the caller still speaks; always correlated by the item's id alone (B.5 5).

With ``idle_timeout_ms`` set, silence of that length after the last response, as long as it takes to
play that, is committed as a turn in which nobody spoke (``timeout_triggered``), and answered.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from simulators.realtime import generation
from simulators.realtime.conversation import Conversation, Item
from simulators.realtime.errors import ClientError
from simulators.realtime.faults import TurnFault
from simulators.realtime.mishaps import Mishaps
from simulators.realtime.outbox import Outbox
from simulators.realtime.recognition import recognise
from simulators.realtime.replies import Replies
from simulators.realtime.responses import Asked
from simulators.realtime.script import AgentScript, Hearing
from simulators.realtime.session_config import Settings
from simulators.realtime.session_truth import CallerItem, FaultPlayed, SessionTruth, SpeechDetected
from simulators.realtime.vad import SpeechStarted, Vad
from simulators.realtime.wire import Event, obfuscation
from simulators.speech.g711 import ALAW_TO_ULAW, BYTES_PER_MS, pcm24k_to_ulaw

_APPEND_LIMIT_BYTES = 15 * 1024 * 1024
_COMMIT_LEAST_MS = 100
_STREAMED_EVERY_MS = 640
"""How often a streaming transcription looks for new words."""
_AS_IT_SHOULD_BE = TurnFault()


class CallerTurns:
    """Takes the caller's audio and makes turns of it."""

    def __init__(
        self,
        script: AgentScript,
        settings: Settings,
        outbox: Outbox,
        conversation: Conversation,
        replies: Replies,
        mishaps: Mishaps,
        truth: SessionTruth,
        *,
        interrupt: Callable[[], None],
        respond: Callable[[Asked], None],
    ) -> None:
        """Begin with no audio.

        Args:
            script: How turns are transcribed, and how fast.
            settings: The session's, as they are at any time.
            outbox: Where events go.
            conversation: Where turns become items.
            replies: Told what was said.
            mishaps: What goes wrong.
            truth: Where the facts are kept.
            interrupt: Called when the caller begins to speak and that ends responses.
            respond: Called when a turn, or a long silence, is over and that begins one.
        """
        self._script = script
        self._settings = settings
        self._outbox = outbox
        self._conversation = conversation
        self._replies = replies
        self._mishaps = mishaps
        self._truth = truth
        self._interrupt = interrupt
        self._respond = respond
        self._vad = Vad()
        self._buffer_from_ms = 0
        """Start of the uncommitted audio."""
        self._turn_id: str | None = None
        """Future item of the turn under way."""
        self._turn_start_ms = 0
        self._streamed_words = 0
        self._streamed_until_ms = 0
        self._turns = 0
        self._silences = 0
        """Silences that have begun; the last one may be awaited."""
        lines = [h.text for h in script.hearings if h.text]
        self._sayable = (*lines, *script.vocabulary)
        self.configure()

    def configure(self) -> None:
        """Take over changed settings."""
        if self._settings.turn_detection is not None:
            self._vad.configure(self._settings.turn_detection)

    # --- client events -------------------------------------------------------------------------

    def append(self, encoded: str) -> None:
        """Take audio; its turns and their consequences follow at once.

        Raises:
            ClientError: It is not base64, or too much.
        """
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ClientError(
                "invalid_value",
                "Invalid 'audio'. Expected base64-encoded audio bytes but got an invalid value.",
                "audio",
            ) from None
        if len(raw) > _APPEND_LIMIT_BYTES:
            raise ClientError("invalid_value", "Invalid 'audio': more than 15 MiB.", "audio")
        match self._settings.input_format:
            case "audio/pcm":
                ulaw = pcm24k_to_ulaw(raw)
            case "audio/pcma":
                ulaw = raw.translate(ALAW_TO_ULAW)
            case _:
                ulaw = raw
        self._truth.appends += 1
        self._truth.appended += ulaw
        for event in self._vad.feed(ulaw, listen=self._settings.turn_detection is not None):
            if isinstance(event, SpeechStarted):
                self._started(max(event.audio_start_ms, self._buffer_from_ms))
            else:
                self._stopped(event.audio_end_ms)
        self._stream_transcription()

    def commit(self) -> None:
        """Make a turn of what is in the buffer; no response follows.

        Raises:
            ClientError: There is next to nothing in it.
        """
        length_ms = self._input_ms - self._buffer_from_ms
        if length_ms < _COMMIT_LEAST_MS:
            raise ClientError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_COMMIT_LEAST_MS}ms of audio, but buffer only has {length_ms:.2f}ms of audio.",
            )
        self._vad.forget()
        turn_id = self._turn_id or self._outbox.new_id("item")
        recognised = self._recognise(self._buffer_from_ms, self._input_ms)
        self._commit(turn_id, self._buffer_from_ms, self._input_ms, recognised)

    def clear(self) -> None:
        """Forget what is in the buffer."""
        self._buffer_from_ms = self._input_ms
        self._turn_id = None
        self._vad.forget()
        self._outbox.emit("input_audio_buffer.cleared")

    # --- silence -------------------------------------------------------------------------------

    def await_silence(self, played_ms: int) -> None:
        """A response is over that takes so long to play: from then on silence counts."""
        detection = self._settings.turn_detection or {}
        timeout_ms = detection.get("idle_timeout_ms")
        if timeout_ms is None:
            return
        self._silences += 1
        silence = self._silences
        self._outbox.after(played_ms + timeout_ms, lambda: self._idle(silence, timeout_ms))

    def _idle(self, silence: int, timeout_ms: int) -> None:
        if silence != self._silences or self._turn_id is not None:
            return
        item_id, end_ms = self._outbox.new_id("item"), self._input_ms
        start_ms = max(self._buffer_from_ms, end_ms - timeout_ms)
        self._outbox.emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=start_ms,
            audio_end_ms=end_ms,
            item_id=item_id,
        )
        self._commit(item_id, start_ms, end_ms, "")
        self._respond("idle")

    # --- turns ---------------------------------------------------------------------------------

    @property
    def _input_ms(self) -> int:
        return len(self._truth.appended) // BYTES_PER_MS

    def _audio(self, start_ms: int, end_ms: int) -> bytes:
        return bytes(self._truth.appended[start_ms * BYTES_PER_MS : end_ms * BYTES_PER_MS])

    def _recognise(self, start_ms: int, end_ms: int) -> str:
        return recognise(self._audio(start_ms, end_ms), self._sayable)

    def _started(self, audio_start_ms: int) -> None:
        self._silences += 1
        turn_id = self._turn_id = self._outbox.new_id("item")
        self._turn_start_ms = self._streamed_until_ms = audio_start_ms
        self._streamed_words = 0
        self._detected(True, audio_start_ms, turn_id)
        self._outbox.emit(
            "input_audio_buffer.speech_started", audio_start_ms=audio_start_ms, item_id=turn_id
        )
        detection = self._settings.turn_detection
        if detection is not None and detection["interrupt_response"]:
            self._interrupt()

    def _stopped(self, audio_end_ms: int) -> None:
        turn_id = self._turn_id
        if turn_id is None:
            return
        self._detected(False, audio_end_ms, turn_id)
        self._outbox.emit(
            "input_audio_buffer.speech_stopped", audio_end_ms=audio_end_ms, item_id=turn_id
        )
        recognised = self._recognise(self._turn_start_ms, audio_end_ms)
        fault = self._mishaps.of_turn(recognised) or _AS_IT_SHOULD_BE
        if fault.no_commit:
            self._played("no_commit", turn_id)
            self._turn_id = None
            self._buffer_from_ms = audio_end_ms
            return
        self._commit(turn_id, self._turn_start_ms, audio_end_ms, recognised)
        detection = self._settings.turn_detection
        if detection is None or not detection["create_response"]:
            return
        if fault.no_response:
            self._played("no_response", turn_id)
        elif fault.response_after_ms:
            self._played("late_response", turn_id)
            self._outbox.after(fault.response_after_ms, lambda: self._respond("turn"))
        else:
            self._respond("turn")

    def _played(self, what: str, item_id: str) -> None:
        self._truth.faults.append(FaultPlayed(self._outbox.now_ms, what, item_id))

    def _detected(self, started: bool, audio_ms: int, item_id: str) -> None:
        self._truth.speech.append(SpeechDetected(self._outbox.now_ms, started, audio_ms, item_id))

    def _commit(self, item_id: str, start_ms: int, end_ms: int, recognised: str) -> None:
        self._turn_id = None
        self._buffer_from_ms = end_ms
        self._turns += 1
        self._outbox.emit(
            "input_audio_buffer.committed",
            previous_item_id=self._conversation.last_id,
            item_id=item_id,
        )
        audio = self._audio(start_ms, end_ms)
        content = [{"type": "input_audio", "transcript": None}]
        wire: Event = {"id": item_id, "type": "message", "status": "completed", "role": "user"}
        item = Item({**wire, "content": content}, input_audio=audio)
        self._conversation.add(item)
        self._conversation.done(item)
        hearing = Hearing()
        if self._turns <= len(self._script.hearings):
            hearing = self._script.hearings[self._turns - 1]
        self._replies.note_input(recognised or hearing.text or "")
        self._truth.caller_items.append(CallerItem(item_id, start_ms, end_ms, recognised))
        if self._settings.transcription is not None:
            self._transcribe(item_id, recognised, hearing, end_ms - start_ms)

    # --- transcription -------------------------------------------------------------------------

    def _stream_transcription(self) -> None:
        """Words while the caller still speaks, before their item exists."""
        turn_id = self._turn_id
        if turn_id is None or not self._settings.streams_transcription:
            return
        if self._input_ms - self._streamed_until_ms < _STREAMED_EVERY_MS:
            return
        self._streamed_until_ms = self._input_ms
        words = self._recognise(self._turn_start_ms, self._input_ms).split()
        self._say_words(turn_id, words[self._streamed_words :])
        self._streamed_words = max(self._streamed_words, len(words))

    def _transcribe(self, item_id: str, recognised: str, hearing: Hearing, length_ms: int) -> None:
        text = recognised if hearing.text is None else hearing.text
        delay_ms = self._script.transcription_delay_ms
        if hearing.delay_ms is not None:
            delay_ms = hearing.delay_ms
        already, self._streamed_words = self._streamed_words, 0

        def finish() -> None:
            if hearing.failure is not None:
                self._fail(item_id, hearing.failure)
                return
            self._say_words(item_id, text.split()[already:])
            self._conversation.set_transcript(item_id, text)
            self._outbox.emit(
                "conversation.item.input_audio_transcription.completed",
                item_id=item_id,
                content_index=0,
                transcript=text,
                usage=self._usage(text, length_ms),
            )

        self._outbox.after(delay_ms, finish)

    def _fail(self, item_id: str, code: str) -> None:
        self._outbox.emit(
            "conversation.item.input_audio_transcription.failed",
            item_id=item_id,
            content_index=0,
            error={
                "type": "server_error",
                "code": code,
                "message": f"Input transcription failed for item '{item_id}'.",
                "param": None,
            },
        )

    def _say_words(self, item_id: str, words: list[str]) -> None:
        for word in words:
            self._outbox.emit(
                "conversation.item.input_audio_transcription.delta",
                item_id=item_id,
                content_index=0,
                delta=" " + word,
                obfuscation=obfuscation(" " + word),
            )

    def _usage(self, text: str, length_ms: int) -> Event:
        if self._settings.transcribes_by_duration:
            return {"type": "duration", "seconds": -(-length_ms // 1000)}
        audio_tokens, output_tokens = length_ms // 100, len(generation.tokens(text))
        return {
            "type": "tokens",
            "total_tokens": audio_tokens + output_tokens,
            "input_tokens": audio_tokens,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio_tokens},
            "output_tokens": output_tokens,
        }
