"""The join: which words the caller heard, from what was generated and what was played.

``join(facts)`` is a pure function of the *set* of facts: any order, any repeats, the same
transcript. Every subset of a call's facts joins, so a transcript can be read while the call runs.

* :mod:`transcript.join.log`        the facts in their one canonical order
* :mod:`transcript.join.items`      what all writers say about each item
* :mod:`transcript.join.silences`   stretches in which the agent owed an answer
* :mod:`transcript.join.order`      the order in which people experienced all that
* :mod:`transcript.join.agent`      one agent's turn: the words that were heard
* :mod:`transcript.join.caller`     one caller's turn, unless nobody spoke
* :mod:`transcript.join.lifecycle`  numbers, state, and whether anything can still change

Facts and transcripts are the plain messages of ``asheard.v1``; nothing here changes a message that
it was handed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import Role, Transcript, Turn
from transcript.join.agent import agent_turn
from transcript.join.caller import caller_turn
from transcript.join.items import Item, gather
from transcript.join.lifecycle import outline
from transcript.join.log import call_log
from transcript.join.order import experienced
from transcript.join.silences import Silence, silences

__all__ = ["KnownTurns", "join"]


@dataclass(frozen=True, slots=True)
class _Known:
    """A turn, and all that it was made from."""

    facts: tuple[Fact, ...]
    """Held, so that no other fact can take their place in memory."""
    ids: tuple[int, ...]
    rest: object
    turn: Turn | None


class KnownTurns:
    """Turns of one call that were joined before, for one who joins it again whenever it has grown.

    A turn is made anew only if it is made from other facts than before: other objects, not other
    values, so that to look takes no time. It changes no answer, only what it costs.
    """

    def __init__(self) -> None:
        self._by_item: dict[str, _Known] = {}

    def turn(self, item: Item) -> Turn | None:
        """The turn of an item; one that is known is not to be changed."""
        ids = tuple(map(id, item.facts))
        rest = (item.role, item.started, tuple(item.left_playing))
        known = self._by_item.get(item.item_id)
        if known is None or known.ids != ids or known.rest != rest:
            known = _Known(tuple(item.facts), ids, rest, _turn(item))
            self._by_item[item.item_id] = known
        return known.turn


def join(facts: Iterable[Fact], known: KnownTurns | None = None) -> Transcript:
    """Join the facts of one call.

    Args:
        facts: In any order, repeated at will; at least one. Not to be changed afterwards.
        known: Of the same call, when it is joined again and again. Not for two threads at once.

    Returns:
        The transcript as it stands after exactly these facts. ``revision`` counts the distinct
        ones.

    Raises:
        ValueError: There are no facts, or facts of several calls.
    """
    log = call_log(facts)
    transcript = outline(log)
    make = _turn if known is None else known.turn
    after_item_id = ""
    for entry in experienced(gather(log), silences(log), log):
        if isinstance(entry, Silence):
            transcript.events.append(entry.event(after_item_id))
        elif (turn := make(entry)) is not None:
            transcript.turns.append(turn)
            after_item_id = turn.item_id or after_item_id  # one without a name stands for none
    return transcript


def _turn(item: Item) -> Turn | None:
    if item.role == Role.ROLE_CALLER:
        return caller_turn(item)
    if item.role == Role.ROLE_TOOL:
        return _tool_turn(item)
    return agent_turn(item)


def _tool_turn(item: Item) -> Turn | None:
    if item.tool is None:
        return None
    return Turn(
        item_id=item.item_id,
        role=Role.ROLE_TOOL,
        generated_text=f"{item.tool.name}({item.tool.arguments})",
    )
