"""Results as the Markdown tables of ``docs/performance.md``. Pure.

asheard bench all > results.jsonl; asheard bench table results.jsonl
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bench.capacity import Capacity
from bench.faults.rows import FaultRow
from bench.faults.run import SCENARIOS
from bench.processes import CHILDREN
from bench.results import CallsResult
from bench.spread import Spread
from bench.system import SystemResult


class _Kind(msgspec.Struct):
    bench: str


def tables(json_lines: Iterable[str], before: Iterable[str] = ()) -> str:
    """The tables of all results that have one; other results are left out.

    Args:
        json_lines: Results.
        before: The faults of an older version, for a column of their own.
    """
    calls: list[CallsResult] = []
    networks: list[SystemResult] = []
    capacities: list[Capacity] = []
    faults: list[FaultRow] = []
    for line in json_lines:
        kind = msgspec.json.decode(line, type=_Kind).bench
        if kind == "calls":
            calls.append(msgspec.json.decode(line, type=CallsResult))
        elif kind == "system":
            networks.append(msgspec.json.decode(line, type=SystemResult))
        elif kind == "capacity":
            capacities.append(msgspec.json.decode(line, type=Capacity))
        elif kind == "faults":
            faults.append(msgspec.json.decode(line, type=FaultRow))
    parts = []
    if calls:
        parts.append(_table(_CALLS, [_calls_row(r) for r in sorted(calls, key=_order)]))
        ours = [result for result in calls if result.system == "asheard"]
        if ours:
            costs = part_costs(max(ours, key=_order))
            parts.append(_table(("calls", *costs), [_cluster_row(n, costs) for n in _CLUSTERS]))
    if capacities:
        parts.append(_table(_CAPACITY, [_capacity_row(result) for result in capacities]))
    if networks:
        parts.append(_table(_NETWORKS, [_network_row(result) for result in networks]))
        parts.append(_table(_WAYS, _way_rows(networks[0])))
    if faults:
        older = [msgspec.json.decode(line, type=FaultRow) for line in before]
        parts.append(_table(_FAULTS, _fault_rows(faults, {_key(row): row for row in older})))
    return "\n".join(parts)


_FAULTS = ("what is done", "measured", "before", "now", "bound")


def _key(row: FaultRow) -> tuple[str, str]:
    return row.fault, row.measured


def _fault_rows(
    rows: Iterable[FaultRow], before: Mapping[tuple[str, str], FaultRow]
) -> Iterable[list[str]]:
    """In the order of the scenarios, whatever order they were played in."""
    places = {scenario.name: place for place, scenario in enumerate(SCENARIOS)}
    said = ""
    for row in sorted(rows, key=lambda row: places.get(row.fault, len(places))):
        bound = "–"
        if row.bound is not None:
            bound = f"{'≤' if row.at_most else '≥'} {row.bound:g}"
        done = "" if row.fault == said else f"**{row.fault}**: {row.done}"
        said = row.fault
        now = _value(row) if row.ok else f"**{_value(row)}**"
        yield [done, row.measured, _value(before.get(_key(row))), now, bound]


def _value(row: FaultRow | None) -> str:
    if row is None:
        return "–"
    return "not in time" if row.value is None else f"{row.value:g} {row.unit}".strip()


_CALLS = (
    "calls", "system", "gateway", "worker", "aligners", "transcript", "sum", "KB per call",
    "forward ms", "barge-in ms", "lost", "heard exactly", "others",
)  # fmt: skip

_CAPACITY = ("system", "calls on one core", "forward ms, 99 %, by calls")

_NETWORKS = (
    "network", "cuts", "error ms", "range ms", "outside it", "elapsed timestamps, error ms",
    "newest acknowledged mark, error ms",
)  # fmt: skip

_WAYS = ("way", "exactly right", "words wrong, mean")


UTILISATION = 0.6
"""Of a core: what a process that carries audio is planned with. A frame waits the longer, the
busier its core is, and an instance that dies leaves its calls to the others."""

_CLUSTERS = (1_000, 10_000, 100_000)


def part_costs(result: CallsResult) -> dict[str, float]:
    """CPU-seconds per call-minute of each part of asheard."""
    costs: dict[str, float] = {}
    for name, process in result.processes.items():
        part = next((p for p in _PARTS if name.startswith(p)), None)
        if part is not None:
            label = "aligners" if name.endswith(CHILDREN) else _PARTS[part]
            costs[label] = costs.get(label, 0.0) + process.cpu_s_per_call_minute
    return costs


_PARTS = {"gateway": "gateways", "session": "workers", "transcript": "transcript services"}


def cores_for(calls: int, cpu_s_per_call_minute: float) -> int:
    """Cores, planned with :data:`UTILISATION`; a process has one, so these are replicas as well."""
    return max(1, math.ceil(calls * cpu_s_per_call_minute / 60 / UTILISATION))


def _cluster_row(calls: int, costs: Mapping[str, float]) -> list[str]:
    return [f"{calls:,}", *(str(cores_for(calls, cost)) for cost in costs.values())]


def _order(result: CallsResult) -> tuple[int, str]:
    return result.calls, result.system


def _calls_row(result: CallsResult) -> list[str]:
    def cost(prefix: str, *, children: bool = False) -> str:
        found = [
            process.cpu_s_per_call_minute
            for name, process in result.processes.items()
            if name.startswith(prefix) and name.endswith(CHILDREN) == children
        ]
        return f"{sum(found):.3f}" if found else ""

    transcript = result.heard.get("transcript")
    exact = None if transcript is None else transcript.exact_share
    return [
        str(result.calls),
        result.system,
        cost("gateway"),
        cost("session"),
        cost("session", children=True),
        cost("transcript"),
        f"{result.cpu_s_per_call_minute:.3f}",
        f"{result.kb_per_call:.0f}",
        _three(result.forward_ms),
        _three(result.barge_in.processing_ms),
        str(result.frames.lost),
        "" if exact is None else f"{exact:.1%}",
        f"{result.others_busy_share:.0%}",
    ]


def _capacity_row(result: Capacity) -> list[str]:
    p99 = ", ".join(
        f"{calls}: {'–' if ms is None else format(ms, '.3g')}"
        for calls, ms in result.forward_p99_ms.items()
    )
    return [result.system, str(result.calls), p99]


def _network_row(result: SystemResult) -> list[str]:
    ours = result.heard["transcript"]
    return [
        result.network,
        str(result.cuts),
        _three(ours.audio_error_ms),
        _three(result.range_width_ms),
        str(result.outside_range),
        _three(result.heard["characters_by_timestamps"].audio_error_ms),
        _three(result.heard["newest_acknowledged_mark"].audio_error_ms),
    ]


def _way_rows(result: SystemResult) -> list[list[str]]:
    return [
        [
            "asheard" if way == "transcript" else way.replace("_", " "),
            "" if score.exact_share is None else f"{score.exact_share:.0%}",
            "" if score.mean_word_error is None else f"{score.mean_word_error:.2f}",
        ]
        for way, score in result.heard.items()
    ]


def _three(readings: Spread) -> str:
    """Median, 99 % and maximum."""
    values = (readings.median, readings.p99, readings.most)
    return " / ".join("–" if value is None else f"{value:.3g}" for value in values)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
