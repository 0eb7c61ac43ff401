"""Entries of the list of calls, and a page of it (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from asheard.v1.transcript_pb2 import Transcript
from asheard.v1.transcript_service_pb2 import CallSummary
from transcript.store import CallQuery, start_us


def summary_of(transcript: Transcript) -> CallSummary:
    """A call's entry in the list."""
    summary = CallSummary(
        call_sid=transcript.call_sid,
        from_number=transcript.from_number,
        to_number=transcript.to_number,
        state=transcript.state,
        final=transcript.final,
    )
    if transcript.HasField("start_time"):
        summary.start_time.CopyFrom(transcript.start_time)
    if transcript.HasField("end_time"):
        summary.end_time.CopyFrom(transcript.end_time)
    return summary


def page(
    stored: Sequence[CallSummary], newer: Sequence[CallSummary], query: CallQuery
) -> list[CallSummary]:
    """A page of the list, with newer entries in place of old ones.

    Args:
        stored: What the store gave for ``query``, with a limit that is higher by as many as there
            are newer entries: so many may drop out.
        newer: Entries as of now, of calls whose entries in the store do not hold.
        query: Which calls to list.
    """
    replaced = {entry.call_sid for entry in newer}
    entries = [entry for entry in stored if entry.call_sid not in replaced]
    entries += [entry for entry in newer if is_listed(entry, query)]
    entries.sort(key=_place, reverse=True)
    return entries[: query.limit]


def is_listed(entry: CallSummary, query: CallQuery) -> bool:
    """Whether a query asks for this call, as a store decides it."""
    started = start_us(entry)
    if query.started_after_us is not None and started < query.started_after_us:
        return False
    if query.started_before_us is not None and started >= query.started_before_us:
        return False
    if query.number and query.number not in (entry.from_number, entry.to_number):
        return False
    if query.state is not None and entry.state != query.state:
        return False
    after = query.after
    return after is None or _place(entry) < (after.start_us, after.call_sid)


def _place(entry: CallSummary) -> tuple[int, str]:
    return start_us(entry), entry.call_sid
