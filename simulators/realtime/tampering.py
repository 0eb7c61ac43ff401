"""What becomes of a server event on its way out: lost, doubled, late, held back, changed. Pure.

Rules, for every :class:`~simulators.realtime.faults.EventFault` of the script and of its replies:

1. A rule counts the events that it is about, by type and item, in its response or in the session.
   It acts on the n-th of them and so many after it.
2. All rules that act on one event act together: it is changed first, then lost or doubled, then
   held back, then late.
3. What is held back until another type was sent comes right after that one. If no such event ever
   leaves, it is never sent.
4. What a rule adds is sent right after the event, also if that is lost, and no rule is about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulators.realtime.faults import EventFault
from simulators.realtime.session_truth import FaultPlayed, SessionTruth
from simulators.realtime.wire import Event, Sent


@dataclass(slots=True)
class _Rule:
    fault: EventFault
    response_id: str | None
    """None: of the whole session."""
    seen: int = 0

    def acts(self) -> bool:
        """Count one event that it is about; whether it acts on this one."""
        self.seen += 1
        since = self.seen - self.fault.nth
        return since >= 0 and (self.fault.times is None or since < self.fault.times)


@dataclass(slots=True)
class Parcel:
    """What leaves for one event."""

    kind: str
    """GA name of the event."""
    sent: list[Sent] = field(default_factory=list)
    """The event, none or two of it, or another frame in its place."""
    added: list[Mapping[str, Any]] = field(default_factory=list)
    """Events that follow it."""
    after_ms: int = 0
    awaits: str | None = None
    """GA name of the event that must leave first."""


class Tampering:
    """All rules of one session."""

    def __init__(self, faults: Sequence[EventFault], truth: SessionTruth) -> None:
        self._rules = [_Rule(fault, None) for fault in faults]
        self._truth = truth
        self._responses: dict[str, str] = {}
        """Response of each of its items."""
        self._held: list[Parcel] = []

    @property
    def idle(self) -> bool:
        """There is no rule: events need not come here."""
        return not self._rules

    def watch(self, response_id: str, faults: Sequence[EventFault]) -> None:
        """Take in the rules of a response that is about to begin."""
        self._rules += [_Rule(fault, response_id) for fault in faults]

    def treat(self, kind: str, event: Event, now_ms: int) -> Parcel:
        """Apply every rule to an event.

        Args:
            kind: GA name of its type.
            event: As it would leave; it is changed.
            now_ms: Age of the session.
        """
        response_id = self._response_of(event)
        acting = [
            rule.fault
            for rule in self._rules
            if _is_about(rule, kind, event, response_id) and rule.acts()
        ]
        parcel = Parcel(kind)
        sent: Sent = event
        copies = 1
        for fault in acting:
            for path, value in fault.set.items():
                _put(event, path.split("."), value)
            for path in fault.remove:
                _remove(event, path.split("."))
            if fault.frame is not None:
                sent = fault.frame
            copies = 0 if fault.lose else 2 if fault.twice and copies else copies
            parcel.awaits = fault.after or parcel.awaits
            parcel.after_ms = max(parcel.after_ms, fault.after_ms)
            self._truth.faults.append(FaultPlayed(now_ms, _played(fault), kind))
        parcel.sent = [sent] * copies
        parcel.added = [extra for fault in acting for extra in fault.add]
        return parcel

    def hold(self, parcel: Parcel) -> None:
        """Keep what waits for another event."""
        self._held.append(parcel)

    def release(self, kind: str) -> list[Parcel]:
        """What was held back until an event of this type had left, which it now has."""
        free = [parcel for parcel in self._held if parcel.awaits == kind]
        self._held = [parcel for parcel in self._held if parcel.awaits != kind]
        return free

    def _response_of(self, event: Event) -> str | None:
        response_id = event.get("response_id")
        if response_id is None and "response" in event:
            response_id = event["response"]["id"]
        if "item" in event:
            item_id = event["item"]["id"]
            if response_id is not None:
                self._responses[item_id] = response_id
            return response_id or self._responses.get(item_id)
        return response_id


def _is_about(rule: _Rule, kind: str, event: Event, response_id: str | None) -> bool:
    fault = rule.fault
    if fault.type != kind or rule.response_id not in (None, response_id):
        return False
    return fault.item is None or event.get("item", {}).get("type") == fault.item


def _played(fault: EventFault) -> str:
    """A word for the truth."""
    if fault.lose:
        return "lost"
    if fault.set or fault.remove or fault.frame is not None:
        return "changed"
    if fault.twice:
        return "doubled"
    return "late" if fault.after or fault.after_ms else "added"


def _put(value: Any, path: list[str], new: Any) -> None:
    """Set a field; nothing happens if what should hold it is not there."""
    holder = _holder(value, path)
    if isinstance(holder, dict):
        holder[path[-1]] = new
    elif isinstance(holder, list) and _index(path[-1]) < len(holder):
        holder[_index(path[-1])] = new


def _remove(value: Any, path: list[str]) -> None:
    """Leave a field out, if it is there."""
    holder = _holder(value, path)
    if isinstance(holder, dict):
        holder.pop(path[-1], None)
    elif isinstance(holder, list) and _index(path[-1]) < len(holder):
        del holder[_index(path[-1])]


def _holder(value: Any, path: list[str]) -> Any:
    for name in path[:-1]:
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and _index(name) < len(value):
            value = value[_index(name)]
        else:
            return None
    return value


def _index(name: str) -> int:
    """A place in a list; beyond every list if the name is no number."""
    return int(name) if name.isdecimal() else 2**31
