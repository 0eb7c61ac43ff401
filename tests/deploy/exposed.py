"""What each service exposes on /metrics, asked of the code that counts.

:func:`registries` builds the real metrics of each service without running it; a test in
``test_metrics_page.py`` holds it against what three running processes expose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from gateway.metrics import GatewayMetrics
from runtime.facts import FactOutbox
from runtime.metrics import LoopLag
from session.metrics import SessionMetrics
from transcript.metrics import TranscriptMetrics


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of one service."""

    name: str
    """As an operator looks for it: a counter's with ``_total``."""
    kind: str
    """``counter``, ``gauge`` or ``histogram``."""
    labels: frozenset[str]
    text: str
    """Its help text."""

    def series(self) -> Iterator[tuple[str, frozenset[str]]]:
        """The names under which Prometheus stores it, each with its labels."""
        if self.kind == "histogram":
            yield f"{self.name}_bucket", self.labels | {"le"}
            yield f"{self.name}_sum", self.labels
            yield f"{self.name}_count", self.labels
        else:
            yield self.name, self.labels


def registries() -> dict[str, CollectorRegistry]:
    """What each service registers, by the service's name."""
    gateway, session, transcript = (CollectorRegistry() for _ in range(3))
    GatewayMetrics(gateway)
    SessionMetrics(session)
    TranscriptMetrics(transcript)
    for writer in (gateway, session):
        FactOutbox("127.0.0.1:1", writer)
    for registry in (gateway, session, transcript):
        LoopLag(registry)
    return {"gateway": gateway, "session": session, "transcript": transcript}


@cache
def metrics() -> dict[str, dict[str, Metric]]:
    """Every metric by its name, by service."""
    return {
        service: {metric.name: metric for metric in _metrics(registry)}
        for service, registry in registries().items()
    }


def _metrics(registry: CollectorRegistry) -> Iterator[Metric]:
    # The public collect() does not tell the labels of a metric that has no series yet.
    for collector in registry._collector_to_names:
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert isinstance(collector, MetricWrapperBase)
            labels = frozenset(collector._labelnames)
            yield Metric(name, family.type, labels, family.documentation)
