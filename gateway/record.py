"""What is kept of one call: its facts, in order, and its part of the figures.

A shell: facts go to the transcript service by a writer that never waits, figures into the metrics.
What they say is decided elsewhere (:mod:`gateway.delivery`, :mod:`gateway.playout`).
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from asheard.v1 import fact_pb2
from gateway import evidence
from gateway.bargein import BargeIn, is_plausible
from gateway.barrier import guarded
from gateway.delivery import Delivery, HandInTrace, PartFixed
from gateway.instant import Instant
from gateway.metrics import GatewayMetrics, outcome_label
from gateway.playout.positions import PlaybackProgressed, PlaybackStarted
from gateway.twilio.messages import Start
from gateway.webhook import STREAM_PARAMETER, stream_number_of
from runtime.facts import FactWriter

Kept = PlaybackStarted | PlaybackProgressed | PartFixed | BargeIn | HandInTrace
"""What is kept of what became of agent audio."""


class CallRecord:
    """One call's.

    Args:
        facts: Where its facts go.
        metrics: Where is counted.
        delivery: Its agent audio.
        started: When it began.
        log: Bound to the call.
    """

    def __init__(
        self,
        facts: FactWriter,
        metrics: GatewayMetrics,
        delivery: Delivery,
        started: Instant,
        log: FilteringBoundLogger,
    ) -> None:
        self._facts = facts
        self._metrics = metrics
        self._delivery = delivery
        self._started = started
        self._log = log

    def count_begin(self) -> None:
        """A call more, in the figures."""
        self._metrics.active_calls.inc()

    def begin(self, start: Start) -> None:
        """The call's first fact."""
        started = fact_pb2.CallStarted(
            account_sid=start.start.account_sid,
            stream_sid=start.stream_sid,
            from_number=start.start.parameter("from"),
            to_number=start.start.parameter("to"),
            stream_number=stream_number_of(start.start.parameter(STREAM_PARAMETER)),
        )
        started.start_time.FromMicroseconds(self._started.unix_us)
        self._facts.write(call_started=started)

    def session_assigned(self, session_writer: str) -> None:
        """A worker took the call."""
        self._facts.write(session_assigned=fact_pb2.SessionAssigned(session_writer=session_writer))

    def session_lost(self, session_writer: str, reason: str) -> None:
        """The link to its worker broke."""
        lost = fact_pb2.SessionLost(session_writer=session_writer, reason=reason)
        self._facts.write(session_lost=lost)

    def key_pressed(self, at_ms: int) -> None:
        """The caller pressed a key; which one is not kept."""
        self._facts.write(key_pressed=fact_pb2.KeyPressed(at_ms=at_ms))

    def keep(self, answer: Kept) -> None:
        """What became of agent audio."""
        match answer:
            case PartFixed(fixed, unheard_ms):
                self._facts.write(position_fixed=evidence.position_fixed(fixed))
                self._metrics.heard_audio.inc(fixed.position.best_ms / 1000)
                self._metrics.unheard_audio.inc(unheard_ms / 1000)
            case PlaybackStarted():
                self._facts.write(playback_started=evidence.playback_started(answer))
            case PlaybackProgressed():
                self._facts.write(playback_progressed=evidence.playback_progressed(answer))
            case HandInTrace(events):
                for piece in evidence.playout_traced(events):
                    self._facts.write(playout_traced=piece)
            case BargeIn():
                self._keep_barge_in(answer)

    def _keep_barge_in(self, barge_in: BargeIn) -> None:
        self._facts.write(barged_in=barge_in.as_fact())
        if barge_in.latency_ms is not None and is_plausible(barge_in.latency_ms * 1000):
            self._metrics.barge_in_latency.observe(barge_in.latency_ms / 1000)
        for stage, duration_us in barge_in.stages_us().items():
            if is_plausible(duration_us):
                self._metrics.barge_in_stage.labels(stage).observe(duration_us / 1e6)

    # -- the end: each of these whatever became of the others ----------------------------------

    def end(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        """The call's last fact, also when nothing can say any more when it was."""
        ended = fact_pb2.CallEnded(outcome=outcome)
        guarded(self._log, self._tell_time, ended, at)
        self._facts.write(call_ended=ended)

    def _tell_time(self, ended: fact_pb2.CallEnded, at: Instant) -> None:
        ended.at_ms = self._delivery.media_ms or 0
        # By the clock that nobody sets: a stream does not end before it began.
        lasted_us = at.mono_us - self._started.mono_us
        ended.end_time.FromMicroseconds(self._started.unix_us + lasted_us)

    def count_end(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        """The call is over, in the figures."""
        metrics = self._metrics
        metrics.active_calls.dec()
        metrics.calls.labels(outcome_label(outcome)).inc()
        metrics.call_seconds.observe((at.mono_us - self._started.mono_us) / 1e6)
        counts = self._delivery.counts
        for kind, number in (
            ("unknown", counts.unknown_echoes),
            ("repeated", counts.repeated_echoes),
            ("late", counts.late_echoes),
            ("missed", counts.missed_echoes),
        ):
            metrics.odd_echoes.labels(kind).inc(number)
        metrics.limits.labels("marks").inc(counts.ignored_echoes)
