"""What the caller was transcribed to have said. Pure.

Transcription is asynchronous: it may come before the caller's item exists, while the agent
answers, or after. It is correlated by item id alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from asheard.v1 import fact_pb2
from session.realtime.outputs import WriteFact

PROGRESS_S = 0.5
"""A partial transcript at most this often: who watches a call reads no faster."""


@dataclass(slots=True)
class _Transcript:
    text: str = ""
    written_at: float | None = None


class CallerTranscripts:
    """Collects the transcripts of the caller's items."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._coming: dict[str, _Transcript] = {}
        """What there is of each that is not complete, by item."""
        self._complete: set[str] = set()
        """Items whose transcript was written as a whole, or has failed."""

    @property
    def outstanding(self) -> bool:
        """Whether an item exists whose transcript is still to come."""
        return bool(self._coming)

    def expect(self, item_id: str) -> None:
        """The caller's item exists: its transcript will come, if it has not come already."""
        if self._enabled and item_id not in self._complete:
            self._coming.setdefault(item_id, _Transcript())

    def delta(self, item_id: str, text: str, *, now: float) -> list[WriteFact]:
        """A piece came."""
        if item_id in self._complete:
            return []
        transcript = self._coming.setdefault(item_id, _Transcript())
        transcript.text += text
        if transcript.written_at is not None and now < transcript.written_at + PROGRESS_S:
            return []
        transcript.written_at = now
        return [_fact(item_id, transcript.text)]

    def completed(self, item_id: str, text: str) -> list[WriteFact]:
        """All of it came."""
        return self._end(item_id, text, failed=False)

    def failed(self, item_id: str) -> list[WriteFact]:
        """It will never come."""
        return self._end(item_id, "", failed=True)

    def finish(self) -> list[WriteFact]:
        """Nothing more will come: what there is stands; what never came has failed."""
        facts: list[WriteFact] = []
        for item_id, transcript in list(self._coming.items()):
            facts += self._end(item_id, transcript.text, failed=not transcript.text)
        return facts

    def _end(self, item_id: str, text: str, *, failed: bool) -> list[WriteFact]:
        if item_id in self._complete:
            return []
        self._complete.add(item_id)
        self._coming.pop(item_id, None)
        return [_fact(item_id, text, complete=True, failed=failed)]


def _fact(item_id: str, text: str, *, complete: bool = False, failed: bool = False) -> WriteFact:
    return WriteFact(
        "caller_transcribed",
        fact_pb2.CallerTranscribed(item_id=item_id, text=text, complete=complete, failed=failed),
    )
