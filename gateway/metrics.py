"""The gateway's metrics. What each is for stands in its help text; names are a contract."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from asheard.v1 import fact_pb2
from runtime.http import CLOSED
from runtime.metrics import CALL_BUCKETS, LATENCY_BUCKETS

STAGES = ("detection", "worker", "link", "gateway", "twilio")
"""The parts of a barge-in's latency, in order."""

LIMITS = ("message", "payload", "parameters", "messages", "pace", "keys", "marks")
"""What is bounded of a media stream; docs/metrics.md says what each means."""


def outcome_label(outcome: fact_pb2.CallOutcome.ValueType) -> str:
    """``CALL_OUTCOME_ENDED_BY_AGENT`` as ``ended_by_agent``."""
    return fact_pb2.CallOutcome.Name(outcome).removeprefix("CALL_OUTCOME_").lower()


class GatewayMetrics:
    """All metrics of a gateway, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.active_calls = Gauge(
            "asheard_active_calls", "Calls with an open media stream.", registry=registry
        )
        self.calls = Counter(
            "asheard_calls_total", "Calls that ended, by outcome.", ["outcome"], registry=registry
        )
        self.call_seconds = Histogram(
            "asheard_call_duration_seconds",
            "How long media streams were open.",
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self.barge_in_latency = Histogram(
            "asheard_barge_in_latency_seconds",
            "From the caller's speech onset to silence on the line, on Twilio's clock.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.barge_in_stage = Histogram(
            "asheard_barge_in_stage_seconds",
            "Where the time of a barge-in goes.",
            ["stage"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.sent_audio = Counter(
            "asheard_sent_audio_seconds_total", "Agent audio given to Twilio.", registry=registry
        )
        self.heard_audio = Counter(
            "asheard_heard_audio_seconds_total", "Agent audio that Twilio played.",
            registry=registry,
        )  # fmt: skip
        self.unheard_audio = Counter(
            "asheard_unheard_audio_seconds_total",
            "Agent audio that reached the gateway and was never played.",
            registry=registry,
        )
        self.odd_echoes = Counter(
            "asheard_twilio_odd_echoes_total",
            "Marks that came back unknown, twice, late, or proven missing by a later one.",
            ["kind"],
            registry=registry,
        )
        self.unknown_events = Counter(
            "asheard_twilio_unknown_events_total",
            "Messages of Twilio whose event this version does not know.",
            registry=registry,
        )
        self.protocol_errors = Counter(
            "asheard_twilio_protocol_errors_total",
            "Media streams ended because the peer broke the protocol.",
            registry=registry,
        )
        self.limits = Counter(
            "asheard_twilio_limits_exceeded_total",
            "What Twilio's side sent beyond a limit: the stream was closed over it, or it was dropped.",
            ["limit"],
            registry=registry,
        )
        self.rejected_requests = Counter(
            "asheard_twilio_rejected_requests_total",
            "Requests turned away before they became a stream, by reason.",
            ["reason"],
            registry=registry,
        )
        self.closed_connections = Counter(
            "asheard_http_connections_closed_total",
            "Connections to the public port that were closed before they asked for anything.",
            ["reason"],
            registry=registry,
        )
        self.vanished = Counter(
            "asheard_twilio_vanished_total",
            "Media streams ended because nothing came any more, not even the echo of a mark.",
            registry=registry,
        )
        self.stream_events = Counter(
            "asheard_twilio_stream_events_total",
            "Twilio's stream callbacks, by event.",
            ["event"],
            registry=registry,
        )
        self.caller_frames_dropped = Counter(
            "asheard_caller_frames_dropped_total",
            "Caller audio dropped because the session worker did not take it in time.",
            registry=registry,
        )
        self.links_up = Gauge(
            "asheard_links_up", "Session workers whose link is up.", registry=registry
        )
        self.links_lost = Counter(
            "asheard_links_lost_total", "Links to session workers that broke.", registry=registry
        )
        self.link_messages = Counter(
            "asheard_link_messages_total", "Batches sent to session workers.", registry=registry
        )
        self.link_controls_dropped = Counter(
            "asheard_link_controls_dropped_total",
            "Keys and positions dropped because too many of one call waited for its worker.",
            registry=registry,
        )
        self.link_faults = Counter(
            "asheard_link_faults_total",
            "Exceptions at the link, by what they ended: bugs of ours.",
            ["where"],
            registry=registry,
        )
        for where in ("call", "cleanup", "link"):
            self.link_faults.labels(where)
        # Series that exist from the start can be graphed before anything went wrong.
        for outcome in fact_pb2.CallOutcome.values():
            if outcome != fact_pb2.CALL_OUTCOME_UNSPECIFIED:
                self.calls.labels(outcome_label(outcome))
        for stage in STAGES:
            self.barge_in_stage.labels(stage)
        for reason in CLOSED:
            self.closed_connections.labels(reason)
        for limit in LIMITS:
            self.limits.labels(limit)
