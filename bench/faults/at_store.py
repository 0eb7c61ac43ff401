"""Scenarios about the store: full disks, damaged files, foreign schemas."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import tempfile
from pathlib import Path

from bench.faults.model import ScriptedModel
from bench.faults.neighbours import neighbours
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import must, seconds_until, stage
from cli.system import clean_environment


@scenario(
    "full-disk",
    "the transcript service's disk is full, while calls go on",
    Measure("until the transcript service's /readyz says so", "s", 15),
    Measure("until the gateway's /readyz says so", "s", 60),
    within_s=150.0,
)
async def full_disk(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as calls,
    ):

        async def unready(name: str) -> bool:
            status, text = await system.ask(name, "/readyz")
            return status == 503 or (name == "gateway" and text.strip() not in ("", "ready"))

        async def well() -> bool:
            return not await unready("transcript") and not await unready("gateway")

        await must(well, "facts get through")  # services that start together miss each other first
        # No file of the process may grow any more: what a full disk answers, or nearly so.
        resource.prlimit(system.pid("transcript"), resource.RLIMIT_FSIZE, (4_096, 4_096))

        async def timed(name: str, within_s: float) -> float | None:
            return await seconds_until(lambda: unready(name), within_s)

        found = await asyncio.gather(timed("transcript", 40.0), timed("gateway", 90.0))
        await calls.close()
        return tuple(found)


@scenario(
    "broken-database",
    "the database file is overwritten with noise, while calls go on",
    Measure("until the transcript service's /readyz says so", "s", 15),
)
async def broken_database(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as calls,
    ):
        for path in system.folder.glob("asheard.db*"):
            if path.suffix != ".db-shm":
                path.write_bytes(os.urandom(max(4096, path.stat().st_size)))

        async def unready() -> bool:
            return (await system.ask("transcript", "/readyz"))[0] == 503

        found = await seconds_until(unready, 40.0)
        await calls.close()
        return (found,)


@scenario(
    "foreign-store",
    "the transcript service is started on a store of a version that it does not know",
    Measure("of 1 start: refused with exit status 2 and one line", "", 1, at_most=False),
)
async def foreign_store(_options: Options) -> Values:
    import sqlite3

    with tempfile.TemporaryDirectory(prefix="asheard-store-") as folder:
        path = Path(folder, "asheard.db")
        environment = {
            **clean_environment(),
            "ASHEARD_STORE": f"sqlite:///{path}",
            "ASHEARD_TRANSCRIPT_LISTEN": "127.0.0.1:0",
            "ASHEARD_INGEST_LISTEN": "127.0.0.1:0",
            "ASHEARD_VIEWER_LISTEN": "127.0.0.1:0",
            "ASHEARD_TRANSCRIPT_ADMIN": "127.0.0.1:0",
        }
        await _run_briefly(environment)  # makes the store
        with contextlib.closing(sqlite3.connect(path)) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
            version = next((name for name in tables if "version" in name or "schema" in name), None)
            if version is not None and not version.startswith("sqlite"):
                [column, *_] = [row[1] for row in database.execute(f"PRAGMA table_info({version})")]
                database.execute(f"UPDATE {version} SET {column} = 999")
            database.execute("PRAGMA user_version = 999")
            database.commit()
        status, text = await _run_briefly(environment)
        return (float(status == 2 and len(text.strip().splitlines()) == 1),)


async def _run_briefly(environment: dict[str, str]) -> tuple[int | None, str]:
    """Start a transcript service, and end it after a while if it does not end by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "transcript", env=environment,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(12.0):
            _, errors = await process.communicate()
        return process.returncode, errors.decode()
    except TimeoutError:
        process.terminate()
        _, errors = await process.communicate()
        return None, errors.decode()
