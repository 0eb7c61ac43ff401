"""The list of scenarios and their table; that they find what they look for, the scenarios show."""

from __future__ import annotations

import asyncio
import io
from collections import Counter

import msgspec
import pytest

from bench.faults import run
from bench.faults.proxy import proxy
from bench.faults.rows import SCENARIOS, FaultRow, Measure, Options, Scenario, Values
from bench.table import tables
from cli.main import main


def row(value: float | None, *, ok: bool = True, measured: str = "until it is noticed") -> str:
    found = FaultRow(
        fault="vanished-caller", done="a network is lost", measured=measured, value=value, unit="s",
        bound=35, at_most=True, ok=ok, note="", seconds=1,
    )  # fmt: skip
    return msgspec.json.encode(found).decode()


def test_names_are_unique_and_say_what_is_done() -> None:
    assert [name for name, count in Counter(run.names()).items() if count > 1] == []
    assert all(scenario.done and scenario.measures for scenario in SCENARIOS)


def test_a_bound_is_a_least_or_a_most_and_nothing_is_as_bad_as_can_be() -> None:
    assert Measure("x", bound=3).fulfilled(3) and not Measure("x", bound=3).fulfilled(3.1)
    assert Measure("x", bound=3, at_most=False).fulfilled(3)
    assert not Measure("x", bound=3, at_most=False).fulfilled(2)
    assert not Measure("x", bound=3).fulfilled(None)
    assert Measure("x").fulfilled(None)


async def test_what_cannot_be_played_is_a_row_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(_options: Options) -> Values:
        raise OSError("no such port")

    async def hangs(_options: Options) -> Values:
        await asyncio.sleep(60)
        return (1,)

    measure = Measure("calls", bound=5, at_most=False)
    monkeypatch.setattr(run, "SCENARIOS", [
        Scenario("breaks", "…", (measure,), 5.0, False, breaks),
        Scenario("hangs", "…", (measure,), 0.01, True, hangs),
    ])  # fmt: skip
    rows = await run.run_faults(Options(), lambda row: None)
    assert [(row.fault, row.value, row.ok) for row in rows] == [
        ("breaks", None, False), ("hangs", None, False),
    ]  # fmt: skip
    assert "no such port" in rows[0].note and "not within" in rows[1].note


def test_the_table_shows_an_older_version_beside_this_one() -> None:
    text = tables([row(29.5)], [row(None, ok=False)])
    assert (
        "| **vanished-caller**: a network is lost | until it is noticed | not in time | 29.5 s | ≤ 35 |"
        in text
    )
    assert "**60 s**" in tables([row(60, ok=False)])


def test_an_unknown_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "faults", "--only", "no-such-thing"]) == 2
    assert "no such scenario: no-such-thing" in capsys.readouterr().err


async def test_a_proxy_passes_on_and_vanishes_without_a_word() -> None:
    got = io.BytesIO()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            got.write(data)
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with proxy(f"{host}:{port}") as way:
        reader, writer = await asyncio.open_connection(*way.address.split(":"))
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
        way.vanish()
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        assert got.getvalue() == b"hello"
        writer.transport.abort()
    server.close()
