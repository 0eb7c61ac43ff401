"""The order in which people on the line experienced the items and silences of a call.

Rules:

1. Items are ordered by when they began on the call's clock: an agent's when the caller began to
   hear it, a caller's when they began to speak. Streams of one call follow each other; each one's
   clock begins anew.
2. An item that never began (an answer that was cut before its turn, a tool) comes right after the
   item before it in its writer's order, and so before anything that began later. Before the first
   item of a session stand all items of the sessions before it on the same stream.
3. Ties go by session, then by the writer's order.
4. A silence stands after all that had begun when it began, and after what never began behind that.
   Where its beginning is not known, it stands where its writer told of it. It moves no item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter

from transcript.join.items import Item
from transcript.join.log import CallLog
from transcript.join.silences import Silence

_Place = tuple[int, int, int, int]
"""Stream, start on its clock, the writer's rank, its sequence: of the item, or of the item that one
which never began comes after."""

_BEFORE_ALL = -1


def experienced(
    items: Iterable[Item], silences: Iterable[Silence], log: CallLog
) -> list[Item | Silence]:
    """Sort items and silences by the rules above."""
    ranks = {writer: rank for rank, writer in enumerate([*log.sessions, *log.streams])}
    streams = {**log.stream_of_session, **{w: index for index, w in enumerate(log.streams)}}
    placed: list[tuple[_Place, Item | Silence]] = []
    latest: dict[int, _Place] = {}
    """Of each stream, so far."""
    writer, place = "", (0, 0, 0, 0)
    entries: list[Item | Silence] = [*items, *silences]
    for entry in sorted(entries, key=lambda entry: _told(entry, ranks)):
        if entry.writer != writer:
            writer = entry.writer
            stream = streams[writer]
            place = latest.get(stream, (stream, _BEFORE_ALL, ranks[writer], 0))
        if (started := entry.started) is None:
            begun = place
        else:
            begun = (started.stream, started.at_ms, ranks[writer], entry.sequence)
        placed.append((begun, entry))
        if isinstance(entry, Item):
            place = begun
            latest[place[0]] = max(place, latest.get(place[0], place))
    # Sorting keeps the writer's order where places are the same.
    return [entry for _, entry in sorted(placed, key=itemgetter(0))]


def _told(entry: Item | Silence, ranks: Mapping[str, int]) -> tuple[int, int, str]:
    """Where its writer told of it."""
    name = entry.item_id if isinstance(entry, Item) else ""
    return ranks[entry.writer], entry.sequence, name
