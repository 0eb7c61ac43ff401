"""The admin port tells the truth: ready or not with the reason, alive as long as the loop turns."""

from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from runtime.admin import AdminServer
from runtime.config import Address
from runtime.errors import ConfigurationError


async def test_probes_and_metrics() -> None:
    registry = CollectorRegistry()
    Counter("asheard_test_things_total", "Things.", registry=registry).inc()
    reason: str | None = "no session worker is reachable"
    remark: str | None = None
    admin = AdminServer(
        Address("127.0.0.1", 0), registry, ready=lambda: reason, remark=lambda: remark
    )
    await admin.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as http:
            async with http.get("/readyz") as response:
                assert (response.status, await response.text()) == (503, f"{reason}\n")
            async with http.get("/livez") as response:
                assert response.status == 200
            reason = None
            async with http.get("/readyz") as response:
                assert (response.status, await response.text()) == (200, "ready\n")
            remark = "something is odd"
            async with http.get("/readyz") as response:
                assert (response.status, await response.text()) == (200, f"ready, but {remark}\n")
            async with http.get("/metrics") as response:
                assert "asheard_test_things_total 1.0" in await response.text()
                assert response.content_type == "text/plain"
    finally:
        await admin.close()


async def test_a_taken_port_is_a_configuration_error() -> None:
    first = AdminServer(Address("127.0.0.1", 0), CollectorRegistry(), ready=lambda: None)
    await first.start()
    try:
        second = AdminServer(
            Address("127.0.0.1", first.port), CollectorRegistry(), ready=lambda: None
        )
        with pytest.raises(ConfigurationError, match=str(first.port)):
            await second.start()
    finally:
        await first.close()
