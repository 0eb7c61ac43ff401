"""Cuts: what the model was told to truncate or delete, until it has answered. Pure.

The answers are ``conversation.item.truncated`` and ``.deleted``, correlated by item, or an
``error``, correlated by our ``event_id``. Each cut becomes one fact, with the answer; one that has
none at the end of the session counts as refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from asheard.v1 import fact_pb2
from session.realtime.bounds import MAX_REMEMBERED
from session.realtime.events import ClientEvent, DeleteItem, ErrorDetail, TruncateItem
from session.realtime.faults import is_truncation_refusal
from session.realtime.outputs import Note, Noted, Output, WriteFact


@dataclass(frozen=True, slots=True)
class _Cut:
    event_id: str
    item_id: str
    content_index: int
    audio_end_ms: int | None
    """None: a deletion."""


class Cuts:
    """Cuts under way, oldest first."""

    def __init__(self) -> None:
        self._pending: list[_Cut] = []

    def overdue(self) -> list[Output]:
        """When too many have no answer, the oldest will not get one any more."""
        surplus = self._pending[:-MAX_REMEMBERED]
        del self._pending[:-MAX_REMEMBERED]
        return [output for cut in surplus for output in _answered(cut, accepted=False)]

    def truncate(
        self, event_id: str, item_id: str, content_index: int, audio_end_ms: int
    ) -> ClientEvent:
        """Tell the model that an item was heard up to a place."""
        self._pending.append(_Cut(event_id, item_id, content_index, audio_end_ms))
        return TruncateItem(
            event_id=event_id,
            item_id=item_id,
            content_index=content_index,
            audio_end_ms=audio_end_ms,
        )

    def delete(self, event_id: str, item_id: str) -> ClientEvent:
        """Tell the model that nothing of an item was heard."""
        self._pending.append(_Cut(event_id, item_id, 0, None))
        return DeleteItem(event_id=event_id, item_id=item_id)

    def accepted(self, item_id: str, *, deletion: bool) -> list[Output]:
        """The model did so."""
        for cut in self._pending:
            if cut.item_id == item_id and (cut.audio_end_ms is None) == deletion:
                self._pending.remove(cut)
                return _answered(cut, accepted=True)
        return []

    def refused(self, detail: ErrorDetail) -> list[Output]:
        """The model reported an error: perhaps its No to one of these."""
        refused = [cut for cut in self._pending if cut.event_id == detail.event_id]
        if not refused and detail.event_id is None and is_truncation_refusal(detail):
            # Correlated by nothing: answers come in order.
            refused = [cut for cut in self._pending if cut.audio_end_ms is not None][:1]
        outputs: list[Output] = []
        for cut in refused:
            self._pending.remove(cut)
            outputs += _answered(cut, accepted=False)
        return outputs

    def finish(self) -> list[Output]:
        """No more answers will come."""
        pending, self._pending = self._pending, []
        return [output for cut in pending for output in _answered(cut, accepted=False)]


def _answered(cut: _Cut, *, accepted: bool) -> list[Output]:
    result = "accepted" if accepted else "refused"
    if cut.audio_end_ms is None:
        return [
            Noted(Note.TRUNCATION, f"deletion_{result}"),
            WriteFact("item_deleted", fact_pb2.ItemDeleted(item_id=cut.item_id, accepted=accepted)),
        ]
    return [
        Noted(Note.TRUNCATION, result),
        WriteFact(
            "item_truncated",
            fact_pb2.ItemTruncated(
                item_id=cut.item_id,
                content_index=cut.content_index,
                audio_end_ms=cut.audio_end_ms,
                accepted=accepted,
            ),
        ),
    ]
