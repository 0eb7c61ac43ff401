"""What the transcript service counts. Labels are bounded sets, never ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime.guard import Refusals
from runtime.metrics import LATENCY_BUCKETS


class TranscriptMetrics:
    """The service's own metrics; event loop lag is :class:`runtime.metrics.LoopLag`'s."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Refusals(registry)
        self.append_seconds = Histogram(
            "asheard_transcript_append_seconds",
            "From an AppendFacts request to its facts being durable.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.facts = Counter(
            "asheard_transcript_facts_total",
            "Facts handed in, by kind of writer (gateway, session) and what became of them.",
            ["writer", "outcome"],
            registry=registry,
        )
        self.rejected = Counter(
            "asheard_transcript_facts_rejected_total",
            "Facts that can never be stored: a bug of their writer.",
            ["reason"],
            registry=registry,
        )
        self.join_seconds = Histogram(
            "asheard_transcript_join_seconds",
            "How long it took to join the facts of a call.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.joins_failed = Counter(
            "asheard_transcript_joins_failed_total",
            "Joins that failed: a bug, which the log tells. That call cannot be read.",
            registry=registry,
        )
        self.open_calls = Gauge(
            "asheard_transcript_open_calls", "Calls in the store that are not final.",
            registry=registry,
        )  # fmt: skip
        self.writers_lost = Counter(
            "asheard_transcript_writers_lost_total",
            "Streams and sessions given up: their process was not heard of.",
            registry=registry,
        )
        self.calls_closed = Counter(
            "asheard_transcript_calls_closed_total",
            "Calls closed because no new media stream came.",
            registry=registry,
        )
        self.tasks_failed = Counter(
            "asheard_transcript_tasks_failed_total",
            "Faults of the service's own tasks, which were started again.",
            ["task"],
            registry=registry,
        )
        self.watchers = Gauge(
            "asheard_transcript_watchers", "Readers that follow a call.", registry=registry
        )
        self.calls_finished = Counter(
            "asheard_transcript_calls_final_total",
            "Transcripts that became final here.",
            registry=registry,
        )
        self.cached_facts = Gauge(
            "asheard_transcript_cached_facts", "Facts kept in memory.", registry=registry
        )
        self.store_errors = Counter(
            "asheard_transcript_store_errors_total",
            "Requests that failed because the store did not answer.",
            registry=registry,
        )
        self.store_up = Gauge(
            "asheard_transcript_store_up",
            "1 when the store answered the last check, else 0.",
            registry=registry,
        )
