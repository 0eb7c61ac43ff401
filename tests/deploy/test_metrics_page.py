"""docs/metrics.md and the helper beside this: both say what running services expose."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cli.system import Supervisor, clean_environment, on_free_ports, plan
from tests.deploy.exposed import metrics, registries

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def documented() -> Iterator[tuple[str, str, frozenset[str], frozenset[str]]]:
    """(name, kind, labels, services) of each row."""
    for line in PAGE.splitlines():
        if not line.startswith("| `"):
            continue
        name, kind, labels, services, meaning = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        assert meaning, line
        yield (
            name.strip("`"),
            kind,
            frozenset(re.findall(r"`(\w+)`", labels)),
            frozenset(services.split(", ")),
        )


def test_the_page_lists_what_is_exposed_and_nothing_else() -> None:
    exposed = {
        (
            metric.name,
            metric.kind,
            metric.labels,
            frozenset(service for service in metrics() if metric.name in metrics()[service]),
        )
        for names in metrics().values()
        for metric in names.values()
    }
    rows = list(documented())
    assert len(rows) == len({name for name, *_ in rows})
    assert set(rows) == exposed


@pytest.mark.parametrize("service", metrics())
def test_names_are_as_prometheus_has_them(service: str) -> None:
    for metric in metrics()[service].values():
        assert metric.name.startswith("asheard_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not re.search(r"_(ms|us|milliseconds|minutes)(_|$)", metric.name)
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")
        assert not metric.labels & {"call", "call_sid", "stream", "number", "item", "job"}
        assert metric.text.endswith(".")


async def test_three_running_processes_expose_what_this_was_held_against(tmp_path: Path) -> None:
    environment = on_free_ports(
        {
            **clean_environment(),
            "ASHEARD_TWILIO_VALIDATE": "off",
            "ASHEARD_REALTIME_URL": "ws://127.0.0.1:1/v1/realtime",  # nobody calls
            "ASHEARD_STORE": f"sqlite:///{tmp_path}/asheard.db",
        },
        sessions=1,
    )
    output = io.StringIO()
    supervisor = Supervisor(plan(environment, sessions=1), output)
    await supervisor.start()
    try:
        await supervisor.ready()
        async with aiohttp.ClientSession() as http:
            for service, registry in registries().items():
                admin = environment[f"ASHEARD_{service.upper()}_ADMIN"]
                async with http.get(f"http://{admin}/metrics") as response:
                    assert response.status == 200
                    exposed = families(await response.text())
                assert exposed == families(generate_latest(registry).decode()), service
        async with asyncio.timeout(30):
            await supervisor.stop()
    finally:
        supervisor.kill()


def families(text: str) -> dict[str, tuple[str, str]]:
    """Kind and help text of each metric in an answer of /metrics."""
    return {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(text)
    }
