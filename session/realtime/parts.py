"""What was generated: the audio and text of content parts, and the facts about them. Pure.

All that is generated is reported as a fact once it is final, whatever became of it at the caller's
end: ``item_generated``. Until then ``item_progressed`` says how far it is. Text that comes later
still, until the session's end, is reported again with what there is then: among the facts of one
part, the one with the longest text stands.
"""

from __future__ import annotations

from asheard.v1 import fact_pb2
from runtime.units import BYTES_PER_MS
from session.notices import Sentence
from session.realtime.bounds import (
    MAX_HELD_AUDIO_BYTES,
    MAX_PART_AUDIO_BYTES,
    MAX_PIECE_CHARS,
    MAX_TEXT_CHARS,
)
from session.realtime.interruptions import Interruptions
from session.realtime.outputs import (
    AudioReceived,
    Note,
    Outputs,
    PartGenerated,
    TextReceived,
    ToCaller,
)
from session.realtime.state import Item, Memory, Part, PartKey

BYTES_PER_S = BYTES_PER_MS * 1000

PROGRESS_S = 1.0
"""Between two facts about the progress of a part, as between those about its playback; generation
is three to four times as fast, and over after two or three of them."""


class Parts:
    """Takes in audio and text, and writes what was generated."""

    def __init__(self, memory: Memory, interruptions: Interruptions, outputs: Outputs) -> None:
        self._memory = memory
        self._interruptions = interruptions
        self._outputs = outputs
        self._late: dict[PartKey, float] = {}
        """Parts with text that came after their last fact, and when it is to be written."""

    # --- audio ------------------------------------------------------------------------------

    def audio(
        self,
        item: Item,
        content_index: int,
        payload: bytes,
        length_bytes: int,
        *,
        stale: bool,
        now: float,
    ) -> None:
        """Audio came.

        Args:
            item: Whose.
            content_index: Of which part.
            payload: Base64 of µ-law at 8 kHz.
            length_bytes: Length of the audio.
            stale: Its response was interrupted: nobody is to hear it.
            now: Monotonic seconds.
        """
        memory, outputs = self._memory, self._outputs
        part = item.part(content_index)
        if (
            part.received_bytes + length_bytes > MAX_PART_AUDIO_BYTES
            or memory.held_bytes + length_bytes > MAX_HELD_AUDIO_BYTES
        ):
            part.short = True
        if part.short:  # once something is missing, what follows would be at the wrong place
            outputs.note(Note.DROPPED, "audio")
            return
        part.audible = True
        part.received_bytes += length_bytes
        memory.generated_at = now
        if not part.settled:
            memory.held_bytes += length_bytes
        outputs.add(AudioReceived(item.item_id, content_index, payload))
        if stale:
            outputs.note(Note.STALE)
            # Cut at its very end, so it seemed; now there is something after the cut.
            self._interruptions.decide(item, content_index, part)
        else:
            part.sent = True
            if memory.playing_until > now:
                memory.playing_until += length_bytes / BYTES_PER_S
            else:
                memory.playing_until = now + length_bytes / BYTES_PER_S
                memory.stirred = True
            if len(payload) <= MAX_PIECE_CHARS:
                outputs.add(ToCaller(item.item_id, content_index, payload))
            else:
                for at in range(0, len(payload), MAX_PIECE_CHARS):
                    piece = payload[at : at + MAX_PIECE_CHARS]
                    outputs.add(ToCaller(item.item_id, content_index, piece))
        self._progress(item.item_id, content_index, part, now)

    def audio_over(self, item: Item, content_index: int) -> None:
        """No more audio of a part will come: tell the gateway, if it has any."""
        part = item.parts[content_index]
        response = self._memory.responses.get(item.response_id)
        stale = item.interrupted or (response is not None and response.interrupted)
        if part.sent and not part.last_sent and not part.settled and not stale:
            part.last_sent = True
            self._outputs.add(ToCaller(item.item_id, content_index, b"", last=True))

    def notice(self, item: Item, sentence: Sentence) -> None:
        """Text and audio of our own, all at once: bounded when the worker started."""
        part = item.part(0)
        part.text = sentence.text
        part.received_bytes = sentence.audio_bytes
        part.sent = True
        self._memory.held_bytes += sentence.audio_bytes
        self._outputs.add(TextReceived(item.item_id, 0, sentence.text))
        for piece in sentence.pieces:
            self._outputs.add(AudioReceived(item.item_id, 0, piece))
            self._outputs.add(ToCaller(item.item_id, 0, piece, notice=True))

    # --- text -------------------------------------------------------------------------------

    def text(self, item: Item, content_index: int, delta: str, *, now: float) -> None:
        """A piece of text came."""
        part = item.part(content_index)
        if len(part.deltas) + len(delta) > MAX_TEXT_CHARS:
            delta = self._bounded(delta, len(part.deltas))
        part.add_text(delta)
        if item.status:
            self._text_came_late(item, content_index, part, now + PROGRESS_S)
            return
        self._memory.generated_at = now
        self._outputs.add(TextReceived(item.item_id, content_index, delta))
        self._progress(item.item_id, content_index, part, now)

    def whole_text(self, item: Item, content_index: int, text: str, *, now: float) -> None:
        """The whole text of a part came; also when a delta was lost."""
        part = item.part(content_index)
        part.complete_text(self._bounded(text))
        self._text_came_late(item, content_index, part, now)

    def _bounded(self, text: str, before: int = 0) -> str:
        """As much of a text as a part may have."""
        if before + len(text) <= MAX_TEXT_CHARS:
            return text
        self._outputs.note(Note.DROPPED, "text")
        return text[: max(0, MAX_TEXT_CHARS - before)]

    def _text_came_late(self, item: Item, content_index: int, part: Part, due: float) -> None:
        """When text came after the last fact about a part, have that written again."""
        if item.status and len(part.text) > len(part.written_text):
            key = item.item_id, content_index
            self._late[key] = min(due, self._late.get(key, due))
            self._memory.stirred = True

    # --- facts ------------------------------------------------------------------------------

    def over(self, item: Item) -> None:
        """No more of an item will be generated: report all of it, and settle what was cut."""
        if not item.parts:
            item.part(0)
        for content_index, part in sorted(item.parts.items()):
            self.audio_over(item, content_index)
            if not part.generated:
                self._write_generated(item, content_index, part)
                self._interruptions.decide(item, content_index, part)

    def forget(self, item: Item) -> None:
        """Leave nothing to report, nor to settle."""
        for content_index, part in item.parts.items():
            if (item.item_id, content_index) in self._late:
                self._write_late((item.item_id, content_index))
            if not part.settled:
                self._interruptions.settle(item, content_index, part, 0)

    def next_timer(self) -> float | None:
        """When :meth:`write_late` has something, in monotonic seconds; None: not at all."""
        return min(self._late.values()) if self._late else None

    def write_late(self, *, now: float) -> None:
        """Report text that came late, where that is due."""
        if self._late:
            for key in [key for key, due in self._late.items() if now >= due]:
                self._write_late(key)

    def _write_late(self, key: PartKey) -> None:
        del self._late[key]
        found = self._memory.part(key)
        if found is not None and len(found[1].text) > len(found[1].written_text):
            self._write_generated(found[0], key[1], found[1])

    def _write_generated(self, item: Item, content_index: int, part: Part) -> None:
        part.generated = True
        part.written_text = part.text
        self._outputs.fact(
            "item_generated",
            fact_pb2.ItemGenerated(
                item_id=item.item_id,
                content_index=content_index,
                text=part.text,
                audio_ms=part.received_ms,
                status=item.status,
                reason=item.reason,
            ),
        )
        self._outputs.add(PartGenerated(item.item_id, content_index, part.text, item.completed))

    def _progress(self, item_id: str, content_index: int, part: Part, now: float) -> None:
        if part.written_at is not None and now < part.written_at + PROGRESS_S:
            return
        self._outputs.fact(
            "item_progressed",
            fact_pb2.ItemProgressed(
                item_id=item_id,
                content_index=content_index,
                text_offset=part.written_chars,
                text=part.text[part.written_chars :],
                audio_ms=part.received_ms,
            ),
        )
        part.written_at = now
        part.written_chars = len(part.text)
