"""One link: the gRPC stream to one session worker, with all the calls that the worker has.

What waits to be said is :mod:`gateway.outgoing`'s; here is when it is said, and who hears what
comes:

* Audio on an idle link goes at once; on a busy one at most every 1 ms. With many calls it comes in
  turns (:mod:`gateway.turns`), each of which is a message. Control goes at once.
* There is no task per call or frame. One reader per link hands out what comes.
* A broken link is the loss of its calls; it reconnects for new ones.

Everything that is called in a call goes through :func:`in_call`: what it raises ends that call, and
when its end raises too the call is dropped all the same. Neither reaches the link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec

import grpc
import grpc.aio

from asheard.v1 import fact_pb2, session_service_pb2, session_service_pb2_grpc
from gateway.barrier import FAULTS, guarded, report
from gateway.instant import Instant, now
from gateway.lane import WAITING, Lane
from gateway.metrics import GatewayMetrics
from gateway.outgoing import Message, Outgoing, sound_frames, to_request
from gateway.placement import WorkerLoad
from runtime.backoff import Backoff
from runtime.credentials import Credentials
from runtime.log import get_log
from runtime.rpc import LINK, channel

log = get_log(__name__)

FLUSH_S = 0.001
"""The minimum between two messages of audio. The price is per message, and so each frame of
ten calls is not one; but 99 % of their frames stay below 3 ms."""

OPEN_ANSWER_S = 2.0
"""How long a worker may take to accept a call. It does so at once; a caller waits in silence."""

FIRST_REPORT_S = 5.0
"""How long a fresh link may take to bring its first load report, which is sent at once."""

REFUSED = grpc.StatusCode.UNAUTHENTICATED.name
"""The status by which a worker refuses a gateway that does not prove itself."""

REFUSAL_REASONS = {
    value: name.removeprefix("REFUSAL_REASON_")
    for name, value in session_service_pb2.RefusalReason.items()
}

FINISHED_OUTCOMES = (fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT, fact_pb2.CALL_OUTCOME_MODEL_FAILED)

MAX_DETAIL_CHARS = 500
"""Of a worker's text, for the log."""

RECONNECT_S = 2.5
"""How long a worker that was lost may be away before it counts as gone: one that was restarted, or
whose network was, is back by then. A call waits for a link as long, too, rather than being told
that all lines are busy; the caller hears nothing meanwhile."""

FAULT = "a fault of the gateway"
"""Why a session was lost whose call met a bug; for the log and the transcript's facts."""

FIRST_RETRY_S = 0.1
MAX_RETRY_S = 5.0
"""How long to wait, at first and at most, before a worker is tried again."""

Stream = grpc.aio.StreamStreamCall[
    session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
]

Arguments = ParamSpec("Arguments")


def in_call(
    lane: Lane, metrics: GatewayMetrics, action: Callable[Arguments, None],
    *args: Arguments.args, **kwargs: Arguments.kwargs,
) -> None:  # fmt: skip
    """Do something in a call. A bug that it meets ends that call, not whoever does it.

    A second one, in its end, is logged, and the call is dropped: the link and the worker know
    nothing more of it then.
    """
    try:
        action(*args, **kwargs)
    except FAULTS as error:
        metrics.link_faults.labels("call").inc()
        report(log.bind(call=lane.call_sid), "fault of one call, which ends", error)
        end_lost(lane, metrics, FAULT)


def end_lost(lane: Lane, metrics: GatewayMetrics, reason: str) -> None:
    """Tell a call that its session is lost; its lane is closed when this returns."""
    if lane.outcome is not None:
        return
    try:
        lane.listener.session_lost(reason, now())
    except FAULTS as error:
        metrics.link_faults.labels("cleanup").inc()
        report(log.bind(call=lane.call_sid), "fault in the end of a call, which is dropped", error)
        guarded(log, lane.listener.cut)
    guarded(log, lane.close, fact_pb2.CALL_OUTCOME_SESSION_LOST)


class Link:
    """The link to one worker.

    Args:
        target: ``host:port`` of the worker.
        metrics: Where to count.
        on_refused: Called with a lane that this worker did not take and why; finds another.
        credentials: What the gateway proves itself with; None: nothing.
        name: What the worker's certificate must be for, when it is not the host in ``target``.
        on_room: Called when the worker has reported that it has room.
    """

    def __init__(
        self,
        target: str,
        metrics: GatewayMetrics,
        on_refused: Callable[[Lane, str], None],
        credentials: Credentials | None = None,
        name: str | None = None,
        on_room: Callable[[Link], None] | None = None,
    ) -> None:
        self.target = target
        self._credentials = credentials or Credentials()
        self._name = name
        self.load: WorkerLoad | None = None
        """The newest report. None while the link is down."""
        self.retired = False
        """No new calls, and no reconnecting: the worker is not wanted any more."""
        self._metrics = metrics
        self._on_refused = on_refused
        self._on_room = on_room
        self._lost_at_s: float | None = None
        """When it was lost, if the worker would have taken calls. None: it is up, or never was."""
        self._wake = asyncio.Event()
        self._outgoing = Outgoing(
            control_waits=self._wake.set,
            audio_waits=self._flush_soon,
            control_dropped=self._control_dropped,
        )
        self._flush_timer: asyncio.TimerHandle | None = None
        """Set while audio waits for its turn. At most one: each would make a message of its own."""
        self._flushed_at_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._said_unknown = False
        self._said: str | None = None
        """Why the worker could not be linked, as last logged: a status of gRPC's."""
        self._hurried = asyncio.Event()
        """A call waits for the link: no long pauses."""
        self._backoff = Backoff(FIRST_RETRY_S, MAX_RETRY_S)
        self._backoff_refused = Backoff(MAX_RETRY_S, MAX_RETRY_S)
        """The same when the worker refuses this gateway, until somebody mends a secret."""

    @property
    def calls(self) -> int:
        """How many calls it carries."""
        return len(self._outgoing.lanes)

    @property
    def may_come_back(self) -> bool:
        """It was lost a moment ago with room for calls, and still counts as up."""
        lost_at_s = self._lost_at_s
        return lost_at_s is not None and self._loop.time() - lost_at_s < RECONNECT_S

    # -- what calls and their links do -----------------------------------------------------

    def open(self, lane: Lane) -> None:
        """Offer a call to the worker. The lane's listener or ``on_refused`` hears the answer."""
        if self.load is None:
            raise AssertionError("only a link that is up is chosen")
        self._outgoing.offer(lane)
        self.load = replace(self.load, given_since=self.load.given_since + 1)
        self._loop.call_later(OPEN_ANSWER_S, self._unanswered, lane.handle)

    def announce(self, stopped: session_service_pb2.StreamStopped) -> None:
        """Pass on that a media stream is over, to a worker that may have its call."""
        if self.load is not None:
            self._outgoing.announce(stopped)

    def hurry(self) -> None:
        """A call waits for this link: try again soon if it is down."""
        if self.load is None:
            self._hurried.set()

    def retire(self) -> None:
        """Take no new calls, and close the link when the last call is over."""
        self.retired = True
        self._wake.set()

    async def wait_finished(self) -> None:
        """Wait until a retired link has said its last word and the worker has heard it."""
        await self._finished.wait()

    # -- the stream ------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the link up until it is retired and empty, or the task is cancelled."""
        try:
            while True:
                reason = await self._connect()
                if self.load is not None:
                    self._backoff.reset()
                try:
                    self._lose(reason)
                except Exception:
                    self._fault("fault in taking leave of a lost link")
                if self.retired:
                    return
                await self._pause(
                    self._backoff_refused if reason.startswith(REFUSED) else self._backoff
                )
        finally:
            self._finished.set()

    async def _connect(self) -> str:
        """One connection, until it ends, whatever by; why it did."""
        try:
            reason = await self._serve()
        except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as error:
            reason = _reason(error)
        except asyncio.CancelledError:
            reason = FAULT  # it is the stream that was cancelled, unless it is the task, below
        except Exception:
            reason = FAULT
            self._fault("fault of a link, which reconnects")
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # gRPC swallows a cancellation that comes while it opens the stream.
            raise asyncio.CancelledError
        return reason

    async def _pause(self, backoff: Backoff) -> None:
        """Wait before the next attempt: less when a call waits for the link, but not nothing."""
        try:
            async with asyncio.timeout(backoff.next_s()):
                await self._hurried.wait()
        except TimeoutError:
            return
        self._hurried.clear()
        self._backoff.reset()
        await asyncio.sleep(self._backoff.next_s())

    def _fault(self, event: str) -> None:
        self._metrics.link_faults.labels("link").inc()
        log.exception(event, target=self.target)

    async def _serve(self) -> str:
        """Run one connection; why it ended."""
        # A new channel each time: an old one would keep to its own, much longer backoff.
        connecting = channel(self.target, LINK, credentials=self._credentials, name=self._name)
        async with connecting as connection:
            stream = session_service_pb2_grpc.SessionServiceStub(connection).Link(
                metadata=self._credentials.metadata
            )
            writer = asyncio.create_task(self._write(stream), name=f"link to {self.target}")

            def broken(written: asyncio.Task[None]) -> None:
                # Without a writer there is no link, and the reader would not notice.
                if not written.cancelled() and (error := written.exception()) is not None:
                    self._metrics.link_faults.labels("link").inc()
                    log.error("fault in writing to a link", target=self.target, exc_info=error)
                    stream.cancel()

            writer.add_done_callback(broken)
            try:
                async with asyncio.timeout(FIRST_REPORT_S):
                    response = await stream.read()
                while isinstance(response, session_service_pb2.LinkResponse):  # else EOF
                    self._dispatch(response)
                    response = await stream.read()
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                stream.cancel()
        return "the worker closed the link"

    async def _write(self, stream: Stream) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._flush_timer is not None:
                    self._flush_timer.cancel()
                    self._flush_timer = None
                try:
                    request = self._next_request()
                except FAULTS:
                    self._fault("fault in making a message, which is lost")
                    continue
                if request is not None:
                    self._flushed_at_s = self._loop.time()
                    self._metrics.link_messages.inc()
                    await stream.write(request)
                elif self.retired and not self._outgoing.lanes:
                    await stream.done_writing()  # the worker ends the stream when it has read all
                    return
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is over: the reader learns it too, and says why

    def _next_request(self) -> session_service_pb2.LinkRequest | None:
        """What is to be sent now; None: there is nothing to say."""
        message = self._outgoing.next_message()
        if message is None:
            return None
        if self._outgoing.waits or self.retired:
            self._wake.set()
        try:
            return to_request(message)
        except Exception:
            self._fault("frames that cannot be in a message")
        sound, faulty = sound_frames(message.frames)
        self._metrics.caller_frames_dropped.inc(len(message.frames) - len(sound))
        for handle in faulty:
            lane = self._outgoing.lanes.get(handle)
            if lane is not None:
                self._loop.call_soon(end_lost, lane, self._metrics, FAULT)
        return to_request(Message(message.control, sound))

    def _flush_soon(self) -> None:
        """Send audio when its time has come, at once on an idle link."""
        if self._flush_timer is not None or self._wake.is_set():
            return
        due_s = self._flushed_at_s + FLUSH_S
        if due_s <= self._loop.time():
            self._wake.set()
        else:
            self._flush_timer = self._loop.call_at(due_s, self._wake.set)

    def _control_dropped(self, lane: Lane, control: session_service_pb2.GatewayControl) -> None:
        self._metrics.link_controls_dropped.inc()
        if control.WhichOneof("body") != "key_pressed":
            # The worker would wait in vain. Not here: the call is in the middle of something.
            reason = "its worker does not take what it says"
            self._loop.call_soon(end_lost, lane, self._metrics, reason)

    # -- what comes ------------------------------------------------------------------------

    def _dispatch(self, response: session_service_pb2.LinkResponse) -> None:
        at = now()
        for control in response.control:
            if control.WhichOneof("body") == "load_report":
                try:
                    self._take_report(control.load_report)
                except FAULTS:
                    self._fault("fault in taking a load report")
                continue
            lane = self._outgoing.lanes.get(control.call)
            if lane is not None:  # else the call ended while the message was under way
                in_call(lane, self._metrics, self._control_for, lane, control, at)
        for audio in response.agent_audio:
            lane = self._outgoing.lanes.get(audio.call)
            if lane is not None:
                in_call(lane, self._metrics, self._audio_for, lane, audio, at)

    def _audio_for(self, lane: Lane, audio: session_service_pb2.AgentAudio, at: Instant) -> None:
        lane.listener.agent_audio(audio.item_id, audio.content_index, audio.payload, audio.last, at)

    def _control_for(
        self, lane: Lane, control: session_service_pb2.SessionControl, at: Instant
    ) -> None:
        match control.WhichOneof("body"):
            case "call_accepted":
                if self._outgoing.accept(lane):
                    lane.listener.session_accepted(control.call_accepted.session_writer)
            case "call_refused":
                refused = control.call_refused
                reason = REFUSAL_REASONS.get(refused.reason, "UNKNOWN_REASON")
                self._refuse(lane, f"{reason} {refused.detail[:MAX_DETAIL_CHARS]}")
            case "interrupt":
                lane.listener.interrupted(control.interrupt, at)
            case "call_finished":
                finished = control.call_finished
                finished.detail = finished.detail[:MAX_DETAIL_CHARS]
                if finished.outcome not in FINISHED_OUTCOMES:  # a worker of another version
                    finished.outcome = fact_pb2.CALL_OUTCOME_MODEL_FAILED
                lane.listener.session_finished(finished, at)
            case "stream_stopped" if control.stream_stopped.stream_sid:
                lane.listener.stream_stopped(at)
            case "stream_stopped":
                lane.listener.call_over(at)
            case _ if not self._said_unknown:
                self._said_unknown = True
                log.warning("unknown control from a session worker", target=self.target)
            case _:
                pass

    def _take_report(self, report: session_service_pb2.LoadReport) -> None:
        if self.load is None:
            log.info("session worker linked", target=self.target, max_calls=report.max_calls)
            self._said = None
            self._lost_at_s = None
            self._hurried.clear()
            self._metrics.links_up.inc()
        self.load = WorkerLoad(
            active_calls=report.active_calls,
            max_calls=max(1, report.max_calls),
            event_loop_lag_us=report.event_loop_lag_us,
            draining=report.draining,
        )
        if self._on_room is not None and self.load.has_room and not self.retired:
            self._on_room(self)

    def _refuse(self, lane: Lane, reason: str) -> None:
        if self._outgoing.refuse(lane):
            self._try_next(lane, reason)
        else:
            end_lost(lane, self._metrics, reason)  # it took the call before: that is over, then

    def _unanswered(self, handle: int) -> None:
        lane = self._outgoing.lanes.get(handle)
        # It may still take the call in its own time, and is told that there is none any more.
        if lane is not None and self._outgoing.withdraw(lane):
            in_call(lane, self._metrics, self._try_next, lane, "no answer")

    def _try_next(self, lane: Lane, reason: str) -> None:
        lane.tried.add(self)
        self._on_refused(lane, reason)

    def _lose(self, reason: str) -> None:
        load, self.load = self.load, None
        if load is not None:
            self._lost_at_s = None if load.draining else self._loop.time()
            self._metrics.links_up.dec()
        if self.retired:
            log.info("session worker left", target=self.target)
        elif load is not None:
            self._metrics.links_lost.inc()
            log.warning("session worker lost", target=self.target, reason=reason, calls=self.calls)
        elif (status := reason.partition(":")[0]) != self._said:
            self._said = status
            if status == REFUSED:
                log.error("session worker refuses this gateway", target=self.target, reason=reason)
            else:
                log.warning("session worker unreachable", target=self.target, reason=reason)
        for lane in self._outgoing.lose():
            if lane.outcome is not None:
                continue  # by what another one did
            if lane.state is WAITING:
                in_call(lane, self._metrics, self._try_next, lane, reason)
            else:
                end_lost(lane, self._metrics, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, TimeoutError):
        return "no load report"
    return str(error)
