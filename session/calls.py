"""The calls of a worker: takes them, holds their tasks, and waits for the last one.

What one call raises, in spite of its own barriers, while it is opened or in its own end, ends that
call and never another.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from asheard.v1 import fact_pb2, session_service_pb2
from runtime.facts import FactOutbox, FactWriter
from runtime.log import get_log
from runtime.metrics import LoopLag
from session.admission import Admission
from session.call import Call, CallSettings, Outcome
from session.outbox import Outbox, Outlet

log = get_log(__name__)

FAULT = "internal error"
"""What a gateway is told of a fault of ours; the log says more."""


class Calls:
    """The calls under way, those included whose last facts are being written.

    Args:
        settings: What calls have in common.
        facts: Where their facts go.
        admission: Whether another one is taken.
        lag: How late the event loop is.
    """

    def __init__(
        self, settings: CallSettings, facts: FactOutbox, admission: Admission, lag: LoopLag
    ) -> None:
        self.metrics = settings.metrics
        self._settings = settings
        self._facts = facts
        self._admission = admission
        self._lag = lag
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.on_load: Callable[[], None] = lambda: None
        """Called when :meth:`load_report` says something else than before."""

    @property
    def active(self) -> int:
        """How many there are."""
        return len(self._tasks)

    def refusal(self) -> session_service_pb2.CallRefused | None:
        """Why no call can be taken now; None when one can."""
        return self._admission.refusal(active_calls=self.active, usual_lag_s=self._lag.usual_s)

    def load_report(self) -> session_service_pb2.LoadReport:
        """How much this worker has to do."""
        return self._admission.load_report(
            active_calls=self.active, recent_lag_s=self._lag.recent_s
        )

    def drain(self) -> None:
        """Take no new ones from now on."""
        self._admission.drain()
        self.on_load()

    async def idle(self) -> None:
        """Wait until none is left."""
        await self._idle.wait()

    def cancel(self) -> None:
        """End all of them at once; their last facts are still written."""
        for task in self._tasks:
            task.cancel()

    def start(
        self, outbox: Outbox, handle: int, opened: session_service_pb2.OpenCall
    ) -> tuple[Call, asyncio.Task[None]]:
        """Take a call, whole or not at all, and tell its gateway.

        Args:
            outbox: To the gateway.
            handle: The call's number on that link.
            opened: What the gateway says of it.

        Raises:
            Exception: It cannot be begun. Nothing of it is left.
        """
        writer = self._facts.writer(opened.call_sid, f"session/{uuid.uuid4()}")
        outlet = Outlet(outbox, handle)
        call = Call(opened.call_sid, self._settings, outlet, writer)
        accepted = session_service_pb2.CallAccepted(session_writer=writer.writer)
        running = self._run(call, outlet, writer)
        try:
            task = asyncio.create_task(running, name=f"call {opened.call_sid}")
        except BaseException:
            running.close()
            raise
        outbox.control(handle, call_accepted=accepted)  # before the task says its first word
        self._tasks.add(task)
        self._idle.clear()
        task.add_done_callback(self._ended)
        self._count()
        return call, task

    async def _run(self, call: Call, outlet: Outlet, writer: FactWriter) -> None:
        """A call's life. What it raises is its own end, not the other calls'."""
        try:
            await call.run()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            cancelled = isinstance(error, asyncio.CancelledError)
            if cancelled and task is not None and task.cancelling():
                raise  # somebody meant it
            self.metrics.link_faults.labels("call").inc()
            self.metrics.calls.labels(Outcome.FAILED.value).inc()
            log.exception("fault in the end of a call, which is dropped")
            try:
                outlet.finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, FAULT)
            except Exception:
                log.exception("the gateway is not told that a call was dropped")
        finally:
            if not writer.closed:
                # A call that failed in its own end: its transcript must not wait for it for ever.
                ended = fact_pb2.SessionEnded(reason=FAULT, failed=True)
                try:
                    writer.write(session_ended=ended)
                except Exception:
                    log.exception("the last fact of a call is not written")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()
        self._count()

    def _count(self) -> None:
        self.metrics.active_calls.set(self.active)
        self.on_load()
