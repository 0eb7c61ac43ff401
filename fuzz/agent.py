"""Odd agent files: an agent that can be used, or one clear error; never anything else, never slowly."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

import msgspec
import yaml

from fuzz import mutate
from fuzz.harness import Broken
from runtime.errors import ConfigurationError
from session.agent import BAKERY, Agent, greeting_instructions, load_agent, session_update

MAX_MEMORY_BYTES = 1024 * 1024 * 1024
"""Beyond what the process has: a file of some kilobytes that needs more is a bomb."""

_MAX_UPDATE_BYTES = 16 * 1024 * 1024

_BITS = (
    "&a", "*a", "<<: *a", "&a [*a]", "- ", "? ", ": ", "!!binary", "!!python/object:os.system", "!!set",
    "!!timestamp", "!!float", "!!int", "|", ">-", "---", "...", "%YAML 9.9", "{", "}", "[", "]", "\t",
    ".inf", ".nan", "0x" + "f" * 300, "1:1" * 200, "2001-01-01", "2001-13-99", "9" * 5_000, "0b1", "1_0",
    "~", "yes", "\x00", "\x85", "\ufeff", "'", '"', '"\\U00110000"', '"\\xZZ"', "#", "@", "`", "a: b: c",
)  # fmt: skip

GOOD: dict[str, Any] = {
    "name": "bakery",
    "instructions": "You take orders.",
    "greeting": "Say hello.",
    "voice": "marin",
    "model": "gpt-realtime-2.1",
    "language": "en-GB",
    "turn_detection": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": 6_000,
    },
    "transcription": {"model": "gpt-4o-transcribe", "language": "en", "prompt": "bagels"},
    "tools": [
        {
            "name": "quote",
            "description": "Price of an order.",
            "parameters": {"type": "object", "properties": {"items": {"type": "array"}}},
            "url": "http://127.0.0.1:9000/quote",
            "timeout_s": 5,
        }
    ],
}


class Agents:
    """The target."""

    def __init__(self) -> None:
        self._bakery = BAKERY.read_text()
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-agent-")
        self._path = Path(self._directory.name) / "agent.yaml"
        self._limits = resource.getrlimit(resource.RLIMIT_AS)

    def __enter__(self) -> Agents:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_MEMORY_BYTES, self._limits[1]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self._limits)
        self._directory.cleanup()

    def case(self, random: Random) -> int:
        """One file."""
        self._path.write_bytes(self._file(random))
        try:
            agent = load_agent(self._path)
        except ConfigurationError as error:
            if "\n" in str(error):
                raise Broken("an error is one line") from error
            return 1
        self._use(agent)
        return 1

    def _use(self, agent: Agent) -> None:
        """What was accepted can be sent to a model."""
        update = msgspec.json.encode(session_update(agent))
        if len(update) > _MAX_UPDATE_BYTES:
            raise Broken("what becomes of the file is larger than a model takes")
        greeting_instructions(agent)

    def _file(self, random: Random) -> bytes:
        match random.randrange(10):
            case 0 | 1:
                return mutate.mutated_bytes(random, self._bakery.encode())
            case 2 | 3:
                return self._with_bits(random).encode("utf-8", "replace")
            case 4:
                return _bomb(random).encode()
            case 5:
                depth = random.choice((10, 200, 1_000, 20_000))
                opening = random.choice(("[", "{a: ", "- ", "? "))
                return (f"name: x\ninstructions: y\nx: {opening * depth}").encode()
            case _:
                odd = GOOD
                for _ in range(random.choice((1, 1, 2, 5))):
                    odd = mutate.mutated(random, odd)
                try:
                    text = mutate.as_json(random, odd)  # JSON is YAML, nearly
                except MemoryError:
                    return b""  # a list made fifty times as long, again and again: our own doing
                if random.random() < 0.5 or len(text) > 20_000:
                    return text
                return yaml.safe_dump(odd, allow_unicode=random.random() < 0.5).encode()

    def _with_bits(self, random: Random) -> str:
        lines = self._bakery.splitlines(keepends=True)
        for _ in range(random.choice((1, 2, 6))):
            place = random.randrange(len(lines))
            bit = random.choice(_BITS)
            match random.randrange(4):
                case 0:
                    lines.insert(place, bit + "\n")
                case 1:
                    key, colon, _ = lines[place].partition(":")
                    lines[place] = f"{key}{colon} {bit}\n"
                case 2:
                    lines[place] = lines[place].rstrip("\n") + " " + bit + "\n"
                case _:
                    lines.insert(place, lines[random.randrange(len(lines))])
        return "".join(lines)


def _bomb(random: Random) -> str:
    """Little text that is much when its aliases are followed."""
    wide, deep = random.choice((2, 9)), random.choice((5, 9, 30))
    lines = ["name: x", "instructions: y", "a0: &a0 " + random.choice(("lol", "[1, 2]", "{a: b}"))]
    for level in range(1, deep):
        inside = ", ".join([f"*a{level - 1}"] * wide)
        lines.append(f"a{level}: &a{level} [{inside}]")
    place = random.randrange(4)
    if place == 0:
        lines.append(f"instructions: *a{deep - 1}")
    elif place == 1:
        tool = f"{{name: q, description: d, url: 'http://h/', parameters: {{type: object, x: *a{deep - 1}}}}}"
        lines[2:2] = ["tools:"] if random.random() < 0.1 else []
        lines.append(f"tools: [{tool}]")
    if random.random() < 0.7:  # where nothing forbids the keys
        levels = "\n".join(f"      {line}" for line in lines[2 : 2 + deep] if line.startswith("a"))
        lines = [
            "name: x",
            "instructions: y",
            "tools:",
            "  - name: q",
            "    description: d",
            "    url: http://h/",
            "    parameters:",
            "      type: object",
            levels,
        ]
    return "\n".join(lines) + "\n"
