"""Silence in which the caller waits: how long, and for what. Pure.

A stretch of dead air goes on while neither side speaks and the agent owes something. It begins with
the last word, or with the debt if that came later, and ends when one side speaks or nothing is owed
any more. Its reason is what most of it was spent on:

===========  =======================================================================================
reason       what the agent waited for
===========  =======================================================================================
model        it was asked, or had begun, and no audio came yet
tool         functions had not answered
refused      it refused or failed, and was to be asked again
no response  it answered a turn neither by itself nor in the time that it has for that
reconnect    there was no session
===========  =======================================================================================

A caller that hears nothing for 6 s is told to wait (HOLD), and 6 s of silence later that there is no
answer (SORRY). When it speaks, it waits anew. While a function is what is waited for, it is the agent
file that says when the caller is told so, and the model that does (:mod:`~session.realtime.waiting`);
HOLD only stands in for the model where that has not begun 2 s later, or after 6 s of silence where
the agent file would have had it speak sooner, had the function been called at once. Patience with the
model begins when the function has answered. So no stretch but one with a slow function lasts longer
than 6 s and the way of a word to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from asheard.v1 import transcript_pb2
from session.notices import Notice

PATIENCE_S = 6.0
"""How long a caller waits in silence before it is told to: people ask "hello?" after some five
seconds, and hang up soon after."""

WORD_S = 2.0
"""How long the model may take to say that a function is at work, which it is asked for after 4 s as
a rule: its words come within one, or seldom."""

MIN_FACT_S = 2.0
"""Shorter stretches are pauses as people make them: they are measured, and not written down."""

Reason: TypeAlias = "transcript_pb2.DeadAirReason.ValueType"

TOOL = transcript_pb2.DEAD_AIR_REASON_TOOL

REASONS: dict[Reason, str] = {
    transcript_pb2.DEAD_AIR_REASON_MODEL: "model",
    transcript_pb2.DEAD_AIR_REASON_TOOL: "tool",
    transcript_pb2.DEAD_AIR_REASON_REFUSED: "refused",
    transcript_pb2.DEAD_AIR_REASON_NO_RESPONSE: "no_response",
    transcript_pb2.DEAD_AIR_REASON_RECONNECT: "reconnect",
}
"""Labels of the metric."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch that is over."""

    reason: Reason
    since: float
    """In monotonic seconds."""
    until: float

    @property
    def lasted_s(self) -> float:
        """How long it was."""
        return self.until - self.since


class DeadAir:
    """Follows stretches of dead air; see the module for the rules."""

    def __init__(self) -> None:
        self._owing: Reason | None = None
        self._owing_since = 0.0
        self._quiet_from: float | None = None
        self._since: float | None = None
        self._looked_at = 0.0
        self._spent: dict[Reason, float] = {}
        """Of the stretch that goes on, by reason, in seconds."""
        self._words = 0
        """That the caller was told since it waits."""
        self._told_at = 0.0
        self._word_until: float | None = None
        """How long the model has to say that a function is at work. None: it has, or need not."""

    @property
    def since(self) -> float | None:
        """When the stretch that goes on began, in monotonic seconds. None: none does."""
        return self._since

    def word_owed(self, *, after_s: float, now: float) -> None:
        """The model is to say that a function is at work.

        Args:
            after_s: After so much silence, as the agent file says.
            now: Monotonic seconds; later than that where the function was called late.
        """
        since = now if self._since is None else self._since
        patience_until = since + max(PATIENCE_S, after_s + WORD_S)
        self._word_until = min(now + WORD_S, max(now, patience_until))

    def look(
        self, owing: Reason | None, *, since: float | None, quiet_from: float | None, now: float
    ) -> Stretch | None:
        """See how things are; to be called whenever that may have changed.

        Args:
            owing: What is waited for. None: nothing.
            since: When the wait for that began. None: now, if it is new.
            quiet_from: When nobody speaks any more; it may lie ahead. None: the caller speaks.
            now: Monotonic seconds.

        Returns:
            The stretch that is over by this, if one is.
        """
        over = None
        if self._since is not None:
            self._spend(now)
            if owing is None or quiet_from is None or quiet_from > now:
                over = Stretch(max(self._spent, key=self._spent.__getitem__), self._since, now)
                self._since = self._word_until = None
        if owing is None or quiet_from is None:
            self._words = 0
        elif self._owing is None:
            self._owing_since = now if since is None else since
        elif self._owing == TOOL != owing and (self._words or self._waits_for_long(now)):
            self._told_at = now
        self._owing, self._quiet_from = owing, quiet_from
        if owing is None or quiet_from is None or quiet_from > now:
            return over
        if self._since is None:
            self._since = self._looked_at = min(now, max(quiet_from, self._owing_since))
            self._spent = {}
        self._spend(now)
        return over

    def next_timer(self) -> float | None:
        """When :meth:`look` or :meth:`word` has something without any event; None: it takes one."""
        if self._owing is None or self._quiet_from is None:
            return None
        if self._since is None:
            return self._quiet_from
        if self._owing == TOOL:
            return self._word_until
        return None if self._words > 1 else max(self._since, self._told_at) + PATIENCE_S

    def word(self, *, now: float) -> Notice | None:
        """What the caller is to be told now, if anything; handed over once."""
        due = self.next_timer()
        if self._since is None or due is None or now < due:
            return None
        if self._owing == TOOL:
            self._word_until, self._words = None, 1
        else:
            self._words += 1
        self._told_at = now
        return Notice.HOLD if self._words == 1 else Notice.SORRY

    def _waits_for_long(self, now: float) -> bool:
        return self._since is not None and now >= self._since + PATIENCE_S

    def _spend(self, now: float) -> None:
        """The time since the last look was spent on what was owed then."""
        owing = self._owing
        if owing is None:
            return
        spent = self._spent
        if owing == transcript_pb2.DEAD_AIR_REASON_NO_RESPONSE:
            # It shows only in the end that the model was waited for in vain.
            spent[owing] = spent.get(owing, 0.0) + spent.pop(
                transcript_pb2.DEAD_AIR_REASON_MODEL, 0.0
            )
        spent[owing] = spent.get(owing, 0.0) + now - self._looked_at
        self._looked_at = now
