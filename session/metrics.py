"""Metrics of a session worker. Labels are bounded sets, never ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime.guard import Refusals
from runtime.metrics import CALL_BUCKETS, LATENCY_BUCKETS
from session.latency import passed_us
from session.notices import Notice
from session.realtime.agreed import SETTINGS
from session.realtime.dead_air import REASONS
from session.realtime.outputs import DROPPED, Note, Noted

CALL_OUTCOMES = ("completed", "model_failed", "link_lost", "refused", "failed")
"""Why a session ended: the caller hung up, the model failed, the gateway's link broke, there was
no room, or our own code failed."""

REFINED_RESULTS = ("refined", "none", "failed")
"""What the aligner answered: word times; nothing in time, or no room; or an error of ours."""

TOOL_BUCKETS = (*LATENCY_BUCKETS, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds; a function may take five minutes."""


DEAD_AIR_BUCKETS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 60.0, 300.0)
"""Seconds; a caller is told to wait after six, and that there is no answer after six more."""


class SessionMetrics:
    """Everything a worker counts, in the registry that is handed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Refusals(registry)
        self.active_calls = Gauge(
            "asheard_active_calls", "Calls under way in this process.", registry=registry
        )
        self.calls = Counter(
            "asheard_calls", "Calls that ended, by why.", ["outcome"], registry=registry
        )
        for outcome in CALL_OUTCOMES:
            self.calls.labels(outcome)
        self.call_duration = Histogram(
            "asheard_session_duration_seconds",
            "How long Realtime sessions lasted.",
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self.frame_forward = Histogram(
            "asheard_frame_forward_seconds",
            "From a frame's receipt at the gateway to the model's socket, by two wall clocks: of "
            "the oldest frame of each message; not if the clocks contradict it.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.clock_differences = Counter(
            "asheard_clock_differences",
            "Messages whose oldest frame was not timed since the clocks of gateway and worker "
            "differ.",
            registry=registry,
        )
        self.first_audio = Histogram(
            "asheard_first_audio_seconds",
            "From the caller's last word to the first audio of the answer on the link.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.open_seconds = Histogram(
            "asheard_realtime_open_seconds",
            "From a call's arrival to a Realtime session that is ready for audio.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.reconnects = Counter(
            "asheard_realtime_reconnects",
            "Realtime sessions that were opened anew in mid-call.",
            registry=registry,
        )
        self.unappended_frames = Counter(
            "asheard_caller_frames_unappended",
            "Frames of the caller that never reached the model.",
            ["reason"],
            registry=registry,
        )
        for reason in ("overflow", "malformed", "too_long", "uneven"):
            self.unappended_frames.labels(reason)
        self.link_faults = Counter(
            "asheard_link_faults",
            "Exceptions that were kept from the link, by where they came from: bugs of ours.",
            ["where"],
            registry=registry,
        )
        for where in ("open", "call", "message"):
            self.link_faults.labels(where)
        self.filled_silence = Counter(
            "asheard_filled_silence_seconds",
            "Silence appended where the telephone network had left it out.",
            registry=registry,
        )
        self.errors = Counter(
            "asheard_realtime_errors",
            "Errors that the model reported, by code.",
            ["code"],
            registry=registry,
        )
        self.responses = Counter(
            "asheard_responses", "Responses of the model, by status.", ["status"], registry=registry
        )
        self.incomplete = Counter(
            "asheard_responses_incomplete",
            "Responses that a limit or a filter of the model ended, by why.",
            ["reason"],
            registry=registry,
        )
        self.dead_air = Histogram(
            "asheard_dead_air_seconds",
            "How long neither side spoke while the agent owed something, by what it waited for.",
            ["reason"],
            buckets=DEAD_AIR_BUCKETS,
            registry=registry,
        )
        for reason in REASONS.values():
            self.dead_air.labels(reason)
        self.truncations = Counter(
            "asheard_truncations",
            "What the model answered when it was told what had been heard.",
            ["result"],
            registry=registry,
        )
        self.positions_late = Counter(
            "asheard_positions_late",
            "Barge-ins whose positions took longer than 300 ms.",
            registry=registry,
        )
        self.stale_deltas = Counter(
            "asheard_stale_audio_deltas",
            "Pieces of audio that came after their response was interrupted.",
            registry=registry,
        )
        self.unknown_events = Counter(
            "asheard_realtime_unknown_events",
            "Events of a type that is not in the published protocol.",
            registry=registry,
        )
        self.malformed_events = Counter(
            "asheard_realtime_malformed_events",
            "Events of which too little could be read, by type.",
            ["type"],
            registry=registry,
        )
        self.dropped = Counter(
            "asheard_realtime_dropped",
            "What the model sent beyond what is taken of a conversation, by kind.",
            ["what"],
            registry=registry,
        )
        for what in DROPPED:
            self.dropped.labels(what)
        self.setting_differences = Counter(
            "asheard_realtime_setting_differences",
            "Sessions in which the model has another setting than it was told, by setting.",
            ["setting"],
            registry=registry,
        )
        for setting in SETTINGS:
            self.setting_differences.labels(setting)
        self.notices = Counter(
            "asheard_notices",
            "Sentences that were said without the model, by notice.",
            ["notice"],
            registry=registry,
        )
        for notice in Notice:
            self.notices.labels(notice.value)
        self.tokens = Counter(
            "asheard_realtime_tokens", "Tokens used.", ["kind"], registry=registry
        )
        self.rate_limit = Gauge(
            "asheard_realtime_rate_limit_remaining_ratio",
            "What is left of an account's limit, 0 to 1.",
            ["limit"],
            registry=registry,
        )
        self.refined_word_times = Counter(
            "asheard_refined_word_times",
            "Word times asked of the aligner, by result.",
            ["result"],
            registry=registry,
        )
        for result in REFINED_RESULTS:
            self.refined_word_times.labels(result)
        self.tool_calls = Counter(
            "asheard_tool_calls", "Function calls, by outcome.", ["outcome"], registry=registry
        )
        self.tool_duration = Histogram(
            "asheard_tool_call_seconds",
            "How long function calls took.",
            buckets=TOOL_BUCKETS,
            registry=registry,
        )

    def forwarded(self, oldest_unix_us: int, now_unix_us: int) -> None:
        """A message's frames went to their models.

        Args:
            oldest_unix_us: When the gateway received the oldest of them, by its wall clock.
            now_unix_us: The wall clock here.
        """
        took_us = passed_us(oldest_unix_us, now_unix_us)
        if took_us is None:
            self.clock_differences.inc()
        else:
            self.frame_forward.observe(took_us / 1_000_000)

    def note(self, noted: Noted) -> None:
        """Count what a conversation noted."""
        match noted.note:
            case Note.RESPONSE:
                self.responses.labels(noted.label).inc()
            case Note.ERROR:
                self.errors.labels(noted.label).inc()
            case Note.TRUNCATION:
                self.truncations.labels(noted.label).inc()
            case Note.STALE:
                self.stale_deltas.inc()
            case Note.UNKNOWN_EVENT:
                self.unknown_events.inc()
            case Note.MALFORMED_EVENT:
                self.malformed_events.labels(noted.label).inc()
            case Note.TOKENS:
                self.tokens.labels(noted.label).inc(noted.amount)
            case Note.RATE_LIMIT:
                self.rate_limit.labels(noted.label).set(noted.amount / 1000)
            case Note.POSITIONS_LATE:
                self.positions_late.inc()
            case Note.INCOMPLETE:
                self.incomplete.labels(noted.label).inc()
            case Note.NOTICE:
                self.notices.labels(noted.label).inc()
            case Note.DEAD_AIR:
                self.dead_air.labels(noted.label).observe(noted.amount / 1000)
            case Note.DROPPED:
                self.dropped.labels(noted.label).inc()
            case Note.SETTING_DIFFERS:
                self.setting_differences.labels(noted.label).inc()
            case Note.CALL_NOT_MADE:
                self.tool_calls.labels("not_carried_out").inc()
