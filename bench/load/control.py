"""How a load process is told what to do: one word a line on standard input, one JSON line back.

``begin`` and ``end`` bound the window that is measured; ``finish`` ends the calls and writes the
record. A closed standard input ends the process: no orphan goes on loading a machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping


def say(**facts: object) -> None:
    """Tell the parent something."""
    print(json.dumps(facts), flush=True)


async def obey(commands: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Do what the parent says, until ``finish`` is done or the parent is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        word = (await reader.readline()).decode().strip()
        if not word:
            return
        await commands[word]()
        say(done=word)
        if word == "finish":
            return
