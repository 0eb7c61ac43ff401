"""The load processes as their parent sees them: started, told what to do, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cli.system import clean_environment

ANSWER_S = 60.0
"""A load process that does not answer for so long has broken down."""


class Peer:
    """A running load process."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path) -> None:
        self._process = process
        self.out = out
        """Where its record is, once it has finished."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self, deadline_s: float = ANSWER_S) -> Any:
        """Wait for it to be ready; what it then says of itself."""
        return (await self._answer(deadline_s))["ready"]

    async def tell(self, command: str) -> None:
        """Have it do something, and wait until that is done."""
        if self._process.stdin is None:
            raise AssertionError("the process was started with a pipe")
        self._process.stdin.write(f"{command}\n".encode())
        await self._answer(ANSWER_S)

    async def _answer(self, deadline_s: float) -> dict[str, Any]:
        if self._process.stdout is None:
            raise AssertionError("the process was started with a pipe")
        async with asyncio.timeout(deadline_s):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a load process ended before it was told to; see its errors above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def start(module: str, *arguments: str, out: Path) -> AsyncIterator[Peer]:
    """Run ``python -m MODULE`` for as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(
        *_command(module, (*arguments, "--out", str(out))),
        cwd=Path(__file__).parent.parent,
        env=clean_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        process_group=0,
    )
    try:
        yield Peer(process, out)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
