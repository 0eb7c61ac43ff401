"""Adds to calls what only time can tell, by the rules of :mod:`transcript.closing`.

At its own pace it asks the store for the revisions of open calls and for the signs of life of
processes, two reads however many calls were ever stored: 8 µs of CPU for each open call, of which
the event loop waits for 2. It reads the facts of a call when something may be due, once for each
revision, which costs what a join costs.

Several services on one store all do so. What they add is equal, and is added only to the very
revision that it was judged by; so it does not matter who is first, and no call is closed
over a fact that came meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.errors import NotFound, Unavailable
from runtime.log import get_log
from transcript.closing import Limits, Standing, Watched, due, may_be_due, standing, watch
from transcript.index import Index
from transcript.join.log import call_log
from transcript.joined import JoinedCalls, JoinFailed
from transcript.metrics import TranscriptMetrics
from transcript.once import Once
from transcript.store import OpenCall, Store
from transcript.watches import Watches

log = get_log(__name__)

MAX_PACE_S = 5.0
"""A sixth of the usual grace: a call is closed that much late at most."""

MAX_CALLS_A_SWEEP = 200
"""Calls that are read in one sweep: one or two seconds of one core, after which those who died
first have their turn again."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of a call."""

    revision: int
    standing: Standing | None
    """None: its facts cannot be joined."""


class Sweeper:
    """Closes what nobody else closes.

    Args:
        store: Where the calls are.
        joined: The same, joined.
        index: Who seals a call once nothing of it is missing.
        watches: Those who are told what was added.
        grace_s: ``ASHEARD_STREAM_GRACE_SECONDS``.
        lost_s: ``ASHEARD_WRITER_LOST_SECONDS``.
        metrics: What is counted.
    """

    def __init__(
        self,
        store: Store,
        joined: JoinedCalls,
        index: Index,
        watches: Watches,
        metrics: TranscriptMetrics,
        *,
        grace_s: float,
        lost_s: float,
    ) -> None:
        self._store = store
        self._joined = joined
        self._index = index
        self._watches = watches
        self._metrics = metrics
        self.pace_s = min(MAX_PACE_S, grace_s / 5, lost_s / 5)
        # In this time some signs of life may have been missed, but never all that count.
        self._limits = Limits(grace_s, lost_s, away_s=max(3 * self.pace_s, lost_s / 4))
        self._watched: Watched | None = None
        self._known: dict[str, _Known] = {}
        self._said = Once()

    async def run(self) -> None:
        """Sweep until cancelled.

        Raises:
            Unavailable: The store cannot be reached.
        """
        while True:
            await self.sweep(asyncio.get_running_loop().time())
            await asyncio.sleep(self.pace_s)

    async def sweep(self, now_s: float) -> None:
        """Look once, and add what is due.

        Args:
            now_s: A clock that goes on evenly.

        Raises:
            Unavailable: The store cannot be reached.
        """
        open_calls = {call.call_sid: call for call in await self._store.open_calls()}
        seen_us = await self._store.processes()
        # A writer's process is stored with it. Should it be missing, it never gave a sign of life.
        named = {
            state.process: -1
            for call in open_calls.values()
            for state in call.writers.values()
            if state.process
        }
        watched = self._watched = watch(
            self._watched,
            now_s,
            {call.call_sid: call.revision for call in open_calls.values()},
            {**named, **seen_us},
            self._limits,
        )
        self._metrics.open_calls.set(len(open_calls))
        self._known = {
            call_sid: known
            for call_sid, known in self._known.items()
            if call_sid in open_calls and open_calls[call_sid].revision == known.revision
        }
        to_look_at = [
            call
            for call_sid, call in open_calls.items()
            if may_be_due(call.writers, watched.quiet_s(call_sid), watched, self._limits)
        ]
        to_look_at.sort(key=lambda call: watched.quiet_s(call.call_sid), reverse=True)
        read = 0
        for call in to_look_at:
            if call.call_sid not in self._known:
                if read == MAX_CALLS_A_SWEEP:
                    break
                read += 1
            await self._close(call, watched)
        else:
            await self._forget(open_calls, seen_us, watched)

    async def _close(self, call: OpenCall, watched: Watched) -> None:
        """Add what is due to one call. What goes wrong with it concerns no other."""
        try:
            known = self._known.get(call.call_sid)
            if known is None:
                known = self._known[call.call_sid] = await self._read(call)
            if known.standing is None:
                return
            if known.standing.is_final:
                await self._index.write(call.call_sid)  # nobody has sealed it yet
                return
            facts = due(call.call_sid, known.standing, call.writers, watched, self._limits)
            if not facts or not await self._store.add(facts, call.revision):
                return  # Something came meanwhile: it is judged anew.
            for fact in facts:
                if fact.HasField("writer_lost"):
                    self._metrics.writers_lost.inc()
                    log.warning("writer lost", call=call.call_sid, writer=fact.writer_lost.writer)
                else:
                    self._metrics.calls_closed.inc()
                    log.info("call closed: no new stream came", call=call.call_sid)
            await self._index.write(call.call_sid)
            self._watches.tell([call.call_sid])
        except NotFound:
            pass  # Deleted meanwhile.
        except Unavailable:
            raise
        except Exception as error:
            self._known[call.call_sid] = _Known(call.revision, None)
            if self._said.first("cannot be closed", call.call_sid):
                log.error("call cannot be closed", call=call.call_sid, exc_info=error)

    async def _read(self, call: OpenCall) -> _Known:
        try:
            joined = await self._joined.get(call.call_sid)
            return _Known(joined.revision, standing(call_log(joined.facts)))
        except JoinFailed:
            return _Known(call.revision, None)

    async def _forget(
        self, open_calls: Mapping[str, OpenCall], seen_us: Mapping[str, int], watched: Watched
    ) -> None:
        """Forget processes that are lost and have no open call."""
        needed = {state.process for call in open_calls.values() for state in call.writers.values()}
        await self._store.forget_processes(
            {
                process: seen
                for process, seen in seen_us.items()
                if process not in needed and watched.silent_s(process) >= self._limits.lost_s
            }
        )
