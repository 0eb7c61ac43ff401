"""What the caller was transcribed to have said. Pure.

Transcription is asynchronous: it may come before the caller's item exists, while the agent
answers, or after. It is correlated by item id alone. A word that was written is never taken back.

Voice detection hears more than words. Nobody spoke in an item whose transcript has no word, nor in
what it heard and never made an item of: that is known when it hears the next thing, or the caller
leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from asheard.v1 import fact_pb2
from session.realtime.bounds import MAX_CALLER_TEXT_CHARS, MAX_REMEMBERED
from session.realtime.outputs import Note, Noted, WriteFact

COMMIT_S = 1.0
"""How long after the end of a sound an item may be made of it; the server says both at once."""

PROGRESS_S = 0.5
"""Between two facts about one partial transcript: who watches a call reads no faster."""


@dataclass(slots=True)
class _Transcript:
    text: str = ""
    written_at: float | None = None
    """In monotonic seconds. None: no fact is written yet."""


class CallerTranscripts:
    """Collects the transcripts of the caller's items."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._coming: dict[str, _Transcript] = {}
        """What there is of each that is not complete, by item."""
        self._complete: dict[str, bool] = {}
        """Items whose transcript was written as a whole, or has failed, and whether that is the
        last word on it: where nobody spoke, text may still come. The newest."""
        self._heard: dict[str, float | None] = {}
        """What voice detection heard and is no item yet, and when it ended, in monotonic seconds.
        None: it goes on. The newest."""

    @property
    def outstanding(self) -> bool:
        """Whether an item exists whose transcript is still to come."""
        return bool(self._coming)

    def began(self, item_id: str) -> list[_Output]:
        """Voice detection hears something; what it heard before becomes no item any more."""
        outputs = self._by_nobody(float("inf"))
        if item_id and item_id not in self._complete and item_id not in self._coming:
            self._heard[item_id] = None
            if len(self._heard) > MAX_REMEMBERED:
                del self._heard[next(iter(self._heard))]
        return outputs

    def stopped(self, item_id: str, *, now: float) -> None:
        """What it heard is over."""
        if item_id in self._heard:
            self._heard[item_id] = now

    def left(self, *, now: float) -> list[_Output]:
        """The caller has left: what ended just now may still become an item."""
        return self._by_nobody(now - COMMIT_S)

    def expect(self, item_id: str) -> list[_Output]:
        """The caller's item exists: its transcript will come, if it has not come already."""
        self._heard.pop(item_id, None)
        if not self._enabled or item_id in self._complete:
            return []
        return self._begin(item_id)

    def delta(self, item_id: str, text: str, *, now: float) -> list[_Output]:
        """A piece came."""
        if self._complete.get(item_id):
            return []
        outputs = self._begin(item_id)
        transcript = self._coming[item_id]
        taken = text[: MAX_CALLER_TEXT_CHARS - len(transcript.text)]
        if len(taken) < len(text):
            outputs.append(Noted(Note.DROPPED, "caller_text"))
        transcript.text += taken
        if transcript.written_at is not None and now < transcript.written_at + PROGRESS_S:
            return outputs
        transcript.written_at = now
        return [*outputs, _fact(item_id, transcript.text)]

    def completed(self, item_id: str, text: str) -> list[_Output]:
        """All of it came. Without a word in it, what came before stands; without that, nobody
        spoke."""
        whole = text[:MAX_CALLER_TEXT_CHARS] if text.strip() else self._words(item_id)
        outputs = self._end(item_id, whole, failed=False)
        if outputs and len(text) > MAX_CALLER_TEXT_CHARS:
            outputs.append(Noted(Note.DROPPED, "caller_text"))
        return outputs

    def failed(self, item_id: str) -> list[_Output]:
        """It will never come; what there is stands."""
        return self._end(item_id, self._words(item_id), failed=True)

    def finish(self) -> list[_Output]:
        """Nothing more will come: what there is stands; what never came has failed."""
        facts: list[_Output] = []
        for item_id in list(self._coming):
            facts += self._give_up(item_id)
        return facts

    def _begin(self, item_id: str) -> list[_Output]:
        """Begin a transcript if it is new; when there are too many, the oldest is given up."""
        outputs: list[_Output] = []
        self._heard.pop(item_id, None)
        if item_id not in self._coming:
            if len(self._coming) >= MAX_REMEMBERED:
                outputs = self._give_up(next(iter(self._coming)))
            self._coming[item_id] = _Transcript()
        return outputs

    def _by_nobody(self, before: float) -> list[_Output]:
        """What was over before then and became no item."""
        nobodys = [i for i, end in self._heard.items() if end is not None and end < before]
        for item_id in nobodys:
            del self._heard[item_id]
        return [_fact(item_id, "", complete=True) for item_id in nobodys]

    def _give_up(self, item_id: str) -> list[_Output]:
        text = self._words(item_id)
        return self._end(item_id, text, failed=not text)

    def _words(self, item_id: str) -> str:
        """What there is of a transcript; empty while there is no word in it."""
        coming = self._coming.get(item_id)
        return coming.text if coming is not None and coming.text.strip() else ""

    def _end(self, item_id: str, text: str, *, failed: bool) -> list[_Output]:
        self._coming.pop(item_id, None)
        self._heard.pop(item_id, None)
        if self._complete.get(item_id) or (item_id in self._complete and not text):
            return []
        self._complete[item_id] = failed or bool(text)
        if len(self._complete) > MAX_REMEMBERED:
            del self._complete[next(iter(self._complete))]
        return [_fact(item_id, text, complete=True, failed=failed)]


_Output = WriteFact | Noted


def _fact(item_id: str, text: str, *, complete: bool = False, failed: bool = False) -> WriteFact:
    return WriteFact(
        "caller_transcribed",
        fact_pb2.CallerTranscribed(
            item_id=item_id,
            text=text,
            complete=complete,
            failed=failed,
            nobody_spoke=complete and not failed and not text,
        ),
    )
