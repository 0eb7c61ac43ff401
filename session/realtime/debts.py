"""What the caller is owed, and which response can know of it. Pure.

============  ======================================  ============================================
debt          since                                   a response can know it that began
============  ======================================  ============================================
GREETING      the session is configured               since: one of voice detection's answers what
                                                      the caller said first
ANSWER        a turn of the caller's was committed,   since
              or what was owed is not known
RESULTS       all functions that a response called    after the server said of each result that
              have answered, and it is over           it joined the conversation
CONTINUATION  noise cut the agent off, or the model   since
              broke off by itself
WAITING       a function takes its time               since
============  ======================================  ============================================

A conversation is read when a response begins, so the order of the server's own events says what a
response can know. An ANSWER or RESULTS makes the debts with instructions of their own void: the
model speaks of what is new; but a CONTINUATION is said together with RESULTS, its instructions allow
for that. What a turn made void is owed again when nobody spoke in it, as its transcription may show
before a response begins. Of each kind there is one debt at a time; what is owed twice waits since the
first and is known since the second.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace


class Kind(enum.Enum):
    """What the caller is owed; see the module."""

    GREETING = "greeting"
    ANSWER = "answer"
    RESULTS = "results"
    CONTINUATION = "continuation"
    WAITING = "waiting"


NEWS = frozenset({Kind.ANSWER, Kind.RESULTS})
"""What the model speaks of by the session's instructions, before anything else."""


@dataclass(slots=True, eq=False)
class Debt:
    """Something that is owed."""

    kind: Kind
    since: float
    """When the caller's wait for it began, in monotonic seconds."""
    known_from: int | None
    """The number of the first response that can know it. None: the server has not said yet that it
    joined the conversation."""
    instructions: str | None = None
    """For its response alone. None: the session's."""
    turns: set[str] = field(default_factory=set)
    """Of an ANSWER to turns and nothing else: the caller's items."""

    def is_known_to(self, number: int) -> bool:
        """Whether a response with that number can know it."""
        return self.known_from is not None and number >= self.known_from


class Debts:
    """What is owed and no response under way is about; the oldest first.

    Responses are numbered in the order in which they began, from 1.
    """

    def __init__(self) -> None:
        self._debts: dict[Kind, Debt] = {}
        self._void: dict[Kind, Debt] = {}
        """What an ANSWER made void, until a response begins that knows it."""
        self._results_known_from: int | None = 1
        """The number of the first response that can know all results that the server was sent.
        None: it has not added all of them yet."""

    def __bool__(self) -> bool:
        return bool(self._debts)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What is owed."""
        return tuple(self._debts)

    @property
    def all(self) -> tuple[Debt, ...]:
        """All of them."""
        return tuple(self._debts.values())

    @property
    def spoken_of(self) -> Debt:
        """The one that says what a response about all of them is to speak of: what was cut off, or
        what came last."""
        *_, newest = self._debts.values()
        return self._debts.get(Kind.CONTINUATION, newest)

    def results_added(self, added: bool, *, begun: int) -> None:
        """Whether the server has said of all results that it was sent that they joined.

        Args:
            added: It has.
            begun: The number of the last response that has begun.
        """
        if not added:
            self._results_known_from = None
        elif self._results_known_from is None:
            self._results_known_from = begun + 1
            debt = self._debts.get(Kind.RESULTS)
            if debt is not None and debt.known_from is None:
                # Another debt from here on: what is under way, asked for or not, began without them.
                self._debts[Kind.RESULTS] = replace(debt, known_from=begun + 1)

    def results(self, since: float) -> Debt:
        """A debt of all results that the server was sent."""
        return Debt(Kind.RESULTS, since, self._results_known_from)

    # --- all ------------------------------------------------------------------------------------

    def add(self, debt: Debt) -> None:
        """Owe something, beside what is owed already."""
        before = self._debts.pop(debt.kind, None)
        if before is not None:
            debt = Debt(
                debt.kind,
                min(debt.since, before.since),
                _later(debt.known_from, before.known_from),
                debt.instructions,
                debt.turns | before.turns if debt.turns and before.turns else set(),
            )
        self._debts[debt.kind] = debt
        beside: frozenset[Kind] = frozenset(Kind)
        if Kind.ANSWER in self._debts:
            beside = NEWS
        elif Kind.RESULTS in self._debts:
            beside = NEWS | {Kind.CONTINUATION}
        for kind in [kind for kind in self._debts if kind not in beside]:
            self._void[kind] = self._debts.pop(kind)

    def no_turn(self, item_id: str, *, known_from: int) -> bool:
        """Nobody spoke in an item of the caller's: no answer to it is owed, and what it made void
        is owed again.

        Args:
            item_id: The item.
            known_from: The number of the first response that can know what is owed again.

        Returns:
            Whether an answer was owed to it, and none is owed to anything else.
        """
        answer = self._debts.get(Kind.ANSWER)
        if answer is None or item_id not in answer.turns:
            return False
        answer.turns.remove(item_id)
        if answer.turns:
            return False
        del self._debts[Kind.ANSWER]
        void, self._void = self._void, {}
        for debt in void.values():
            debt.known_from = known_from
            self.add(debt)
        return True

    def take_known(self, number: int) -> list[Debt]:
        """Those that a response can know, which takes them over."""
        known = [debt for debt in self._debts.values() if debt.is_known_to(number)]
        for debt in known:
            del self._debts[debt.kind]
            if debt.kind is Kind.ANSWER:
                self._void.clear()
        return known

    def withdraw(self, kind: Kind) -> None:
        """Something is not owed after all."""
        self._debts.pop(kind, None)
        self._void.pop(kind, None)

    def settle(self, debt: Debt) -> None:
        """The model has spoken of it, and nothing was added to it since."""
        if self._debts.get(debt.kind) is debt:
            del self._debts[debt.kind]

    def clear(self) -> None:
        """Nothing is owed any more."""
        self._debts.clear()
        self._void.clear()


def _later(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
