"""The dashboard: that Grafana knows its fields and that every query asks for what is there.

Not checked, for want of a Grafana: how it looks. That a Prometheus answers its queries was tried by
hand (docs/operations.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.exposed import Metric, metrics

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana" / "asheard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]

JOBS = {f"asheard-{service}": names for service, names in metrics().items()}
SERIES = {
    job: {series: labels for metric in names.values() for series, labels in metric.series()}
    for job, names in JOBS.items()
}
TARGET_LABELS = {"job", "instance"}
"""What Prometheus adds to each series."""


QUERIES = [
    pytest.param(target, id=f"{panel['title']}-{target['refId']}")
    for panel in GRAPHS
    for target in panel["targets"]
]


def parsed(target: dict[str, Any]) -> promql_parser.Expr:
    return promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))


def parts(expression: promql_parser.Expr, kind: type) -> list[Any]:
    """All parts of an expression that are of this kind."""
    found: list[Any] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, kind):
            found.append(node)
        return True

    promql_parser.walk(expression, visit)
    return found


def jobs_of(selector: promql_parser.VectorSelector) -> set[str]:
    """The jobs whose series a selector finds."""
    found = {job for job in JOBS if selector.name in SERIES[job]}
    for matcher in selector.matchers.matchers:
        if matcher.name != "job":
            continue
        if matcher.op == promql_parser.MatchOp.Equal:
            found &= {matcher.value}
        else:
            assert matcher.op == promql_parser.MatchOp.Re
            found = {job for job in found if re.fullmatch(matcher.value, job)}
    return found


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """The places at which ``ours`` says something that ``theirs`` does not."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from lost(value, theirs[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(our, their, f"{path}/{place}")
    elif ours != theirs:
        yield path


def as_grafana_reads_it(dashboard: dict[str, Any]) -> Any:
    """The dashboard after Grafana's own types have read and written it."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


# Its form


def test_grafana_knows_every_field() -> None:
    assert list(lost(DASHBOARD, as_grafana_reads_it(DASHBOARD))) == []


@pytest.mark.parametrize(
    ("panel_part", "misspelt"),
    [("", "descripton"), ("fieldConfig/defaults", "unti"), ("targets/0", "legendFromat")],
)
def test_a_misspelt_field_would_be_seen(panel_part: str, misspelt: str) -> None:
    dashboard = json.loads(json.dumps(DASHBOARD))
    place = dashboard["panels"][1]
    for step in filter(None, panel_part.split("/")):
        place = place[int(step) if step.isdigit() else step]
    place[misspelt] = "x"
    [path] = lost(dashboard, as_grafana_reads_it(dashboard))
    assert path.endswith(misspelt)


def test_it_has_what_grafana_needs_to_import_it() -> None:
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert "id" not in DASHBOARD, "a number that some Grafana gave it"
    [variable] = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))


def test_panels_lie_beside_each_other_and_within_the_page() -> None:
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["w"] > 0 and place["h"] > 0
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
    for one, other in combinations(PANELS, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, f"{one['title']} and {other['title']} overlap"


@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel["title"]) for panel in GRAPHS])
def test_a_panel_says_what_it_shows_and_asks_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert len(panel["description"]) > 60
    assert panel["datasource"] == chosen
    assert all(target["datasource"] == chosen for target in panel["targets"])
    references = [target["refId"] for target in panel["targets"]]
    assert references and len(references) == len(set(references))


# Its queries


@pytest.mark.parametrize("target", QUERIES)
def test_a_query_asks_for_what_is_exposed(target: dict[str, Any]) -> None:
    selectors = parts(parsed(target), promql_parser.VectorSelector)
    assert selectors
    for selector in selectors:
        jobs = jobs_of(selector)
        assert jobs, f"no job has {selector}"
        for matcher in selector.matchers.matchers:
            for job in jobs:
                assert matcher.name in SERIES[job][selector.name] | TARGET_LABELS


@pytest.mark.parametrize("target", QUERIES)
def test_a_query_does_not_add_up_what_two_services_count_in_different_ways(
    target: dict[str, Any],
) -> None:
    expression = parsed(target)
    for selector in parts(expression, promql_parser.VectorSelector):
        if len(jobs_of(selector)) > 1:
            for aggregate in parts(expression, promql_parser.AggregateExpr):
                assert "job" in aggregate.modifier.labels


@pytest.mark.parametrize("target", QUERIES)
def test_a_query_groups_by_labels_that_exist_and_names_its_lines_by_them(
    target: dict[str, Any],
) -> None:
    expression = parsed(target)
    selectors = parts(expression, promql_parser.VectorSelector)
    there = {
        label
        for selector in selectors
        for job in jobs_of(selector)
        for label in SERIES[job][selector.name] | TARGET_LABELS
    }
    kept = {
        label
        for aggregate in parts(expression, promql_parser.AggregateExpr)
        if aggregate.modifier is not None
        for label in aggregate.modifier.labels
    }
    assert kept <= there
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == kept - {"le"}


@pytest.mark.parametrize("target", QUERIES)
def test_a_query_takes_rates_of_counters_and_quantiles_of_histograms(
    target: dict[str, Any],
) -> None:
    expression = parsed(target)
    calls = parts(expression, promql_parser.Call)
    for call in calls:
        if call.func.name == "histogram_quantile":
            [aggregate] = parts(expression, promql_parser.AggregateExpr)
            assert "le" in aggregate.modifier.labels
    growing = {
        matrix.vector_selector.name for matrix in parts(expression, promql_parser.MatrixSelector)
    }
    for selector in parts(expression, promql_parser.VectorSelector):
        [kind] = {
            metric.kind
            for job in jobs_of(selector)
            for metric in JOBS[job].values()
            if selector.name in dict(metric.series())
        }
        assert (selector.name in growing) == (kind in ("counter", "histogram"))


def test_seconds_are_shown_as_seconds() -> None:
    for panel in GRAPHS:
        units = {
            selector.name.removesuffix("_bucket").removesuffix("_total").rpartition("_")[2]
            for target in panel["targets"]
            for selector in parts(parsed(target), promql_parser.VectorSelector)
        }
        assert (panel["fieldConfig"]["defaults"]["unit"] == "s") == (units == {"seconds"})


def test_what_the_contract_promises_to_show_is_shown() -> None:
    shown = {
        selector.name.removesuffix("_bucket")
        for panel in GRAPHS
        for target in panel["targets"]
        for selector in parts(parsed(target), promql_parser.VectorSelector)
    }
    assert shown >= {
        "asheard_barge_in_latency_seconds",
        "asheard_barge_in_stage_seconds",
        "asheard_first_audio_seconds",
        "asheard_active_calls",
        "asheard_calls_total",
        "asheard_frame_forward_seconds",
        "asheard_unheard_audio_seconds_total",
        "asheard_event_loop_lag_seconds",
        "asheard_realtime_reconnects_total",
        "asheard_transcript_append_seconds",
        "asheard_facts_pending",
    }


def test_the_jobs_are_those_that_prometheus_is_told_of() -> None:
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert {job["job_name"] for job in configuration["scrape_configs"]} == set(JOBS)


def test_metrics_of_one_name_are_of_one_kind_everywhere() -> None:
    by_name: dict[str, list[Metric]] = {}
    for names in metrics().values():
        for metric in names.values():
            by_name.setdefault(metric.name, []).append(metric)
    for name, variants in by_name.items():
        assert len({(metric.kind, metric.labels) for metric in variants}) == 1, name
