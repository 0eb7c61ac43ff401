"""Links to scripted workers over real gRPC, and calls that write down what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.instant import Instant
from gateway.lane import Lane, LaneListener
from gateway.links import Links
from gateway.metrics import GatewayMetrics
from tests.gateway.peers import ScriptedWorker, until

FULL = session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED
COMPLETED = fact_pb2.CALL_OUTCOME_COMPLETED


class Listener:
    """A call that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def session_accepted(self, session_writer: str) -> None:
        self.heard.append(("accepted", session_writer))

    def session_refused(self, reason: str, at: Instant) -> None:
        self.heard.append(("refused", reason))

    def session_lost(self, reason: str, at: Instant) -> None:
        self.heard.append(("lost", reason))

    def session_finished(self, finished: session_service_pb2.CallFinished, at: Instant) -> None:
        self.heard.append(("finished", finished.outcome))

    def agent_audio(
        self, item_id: str, content_index: int, payload: bytes, last: bool, at: Instant
    ) -> None:
        self.heard.append(("audio", (item_id, last)))

    def interrupted(self, interrupt: session_service_pb2.Interrupt, at: Instant) -> None:
        self.heard.append(("interrupted", interrupt.interrupt_id))

    def stream_stopped(self, at: Instant) -> None:
        self.heard.append(("stopped", None))

    def call_over(self, at: Instant) -> None:
        self.heard.append(("over", None))

    def cut(self) -> None:
        self.heard.append(("cut", None))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.heard]


class Faulty(Listener):
    """A call that has a bug in everything, and in its own end another one."""

    _faults = itertools.cycle((RuntimeError, ZeroDivisionError, asyncio.CancelledError))

    def __init__(self, *callbacks: str) -> None:
        super().__init__()
        self._callbacks = callbacks

    def __getattribute__(self, name: str) -> Any:
        if name in LISTENED and name in self._callbacks:
            return self._fault
        return super().__getattribute__(name)

    def _fault(self, *_: object) -> None:
        self.heard.append(("fault", None))
        raise next(self._faults)("a bug")


LISTENED = [name for name in vars(LaneListener) if not name.startswith("_") and name != "cut"]
"""All but the last resort."""


@contextlib.asynccontextmanager
async def linked(
    *workers: ScriptedWorker, up: int | None = None, metrics: GatewayMetrics | None = None
) -> AsyncIterator[Links]:
    """Links to workers, of which ``up`` (all) come up."""
    for worker in workers:
        if not worker.port:
            await worker.start()
    metrics = metrics or GatewayMetrics(CollectorRegistry())
    pool = Links([worker.target for worker in workers], metrics)
    task = asyncio.create_task(pool.run())
    await until(lambda: pool.up == (len(workers) if up is None else up), "links up")
    try:
        yield pool
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for worker in workers:
            await worker.stop()


async def placed(pool: Links, call_sid: str = "CA1") -> tuple[Lane, Listener]:
    listener = Listener()
    lane = pool.place(listener, call_sid, "MZ1")
    await until(lambda: listener.heard, "an answer")
    return lane, listener
