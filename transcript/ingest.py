"""Facts on their way into the store, and who is told of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from asheard.v1.fact_pb2 import Fact
from runtime.errors import ConfigurationError, Unavailable
from runtime.log import get_log
from transcript.index import Index
from transcript.metrics import TranscriptMetrics
from transcript.once import Once
from transcript.store import LISTED, Outcome, Store, StoreOverloaded
from transcript.store_health import StoreHealth
from transcript.watches import Watches

log = get_log(__name__)

_SAID = {
    Outcome.LATE: "facts of a final call thrown away",
    Outcome.SURPLUS: "call holds as much as a call may: facts thrown away",
}
"""What is logged, once for each call, of facts that are thrown away."""


class Ingest:
    """Stores facts, and sets in motion what follows from them.

    Args:
        store: Where they go.
        health: Who is told how the store does, and which processes live.
        index: Who brings the entries of calls up to date, and seals what has ended.
        watches: Who tells readers.
        metrics: What is counted.
    """

    def __init__(
        self,
        store: Store,
        health: StoreHealth,
        index: Index,
        watches: Watches,
        metrics: TranscriptMetrics,
    ) -> None:
        self._store = store
        self._health = health
        self._index = index
        self._watches = watches
        self._metrics = metrics
        self._said = Once()

    async def append(self, facts: Sequence[Fact], process: str = "") -> list[Outcome]:
        """Make facts durable; what became of each, in their order.

        Args:
            facts: Of any number of calls; none: the process says that it lives.
            process: Which process writes them; "" when it does not say.

        Raises:
            Unavailable: Nothing is promised; hand them in again.
        """
        self._health.note_alive(process)
        if not facts:
            # A sign of life costs no transaction: the next check of the store writes it. While the
            # store takes nothing, whoever asks should know.
            if self._health.trouble is not None:
                raise Unavailable(self._health.trouble)
            return []
        started = time.perf_counter()
        try:
            outcomes = await self._store.append(facts, process)
        except StoreOverloaded:
            raise
        except (Unavailable, ConfigurationError) as error:
            self._health.note_append_failed(str(error))
            raise
        self._health.note_appended()
        self._metrics.append_seconds.observe(time.perf_counter() - started)
        changed: set[str] = set()
        listed: set[str] = set()
        for fact, outcome in zip(facts, outcomes, strict=True):
            if outcome is Outcome.STORED:
                changed.add(fact.call_sid)
                if fact.WhichOneof("body") in LISTED:
                    listed.add(fact.call_sid)
            elif outcome in _SAID and self._said.first(outcome.value, fact.call_sid):
                log.warning(_SAID[outcome], call=fact.call_sid, writer=fact.writer)
        self._index.note(listed)
        self._watches.tell(changed)
        return outcomes
