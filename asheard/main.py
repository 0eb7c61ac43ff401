"""``asheard COMMAND``: finds the command's module and runs it.

Each command is a module with ``add_arguments(parser)`` and ``run(args) -> int``, imported only when
it is asked for. Exit status: 0 done, 1 the thing asked for did not work out, 2 bad usage or
configuration. The system's own ``asheard`` (``cli/main.py``) has these commands and more.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from asheard import __version__
from asheard.errors import AsheardError, ConfigurationError

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class Command(NamedTuple):
    """A row of a table of commands."""

    module: str
    summary: str


class CommandModule(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit status."""


READING = {
    "get": Command("asheard.commands.get", "print the transcript of a call"),
    "watch": Command("asheard.commands.watch", "follow the transcript of a call"),
    "calls": Command("asheard.commands.calls", "list calls, newest first"),
    "check-heard": Command("asheard.commands.check_heard", "was this passage heard?"),
}

OF_THE_SYSTEM = (
    "up", "gateway", "session", "transcript", "trace", "align", "simulate", "demo", "bench",
)  # fmt: skip
"""Commands that this package has not, so that whoever asks for one is told where it is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the reading commands; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in OF_THE_SYSTEM:
        print(
            f"asheard: {words[0]!r} needs the system, and this is the client alone: "
            "run it from a checkout of the repository, after `make setup`",
            file=sys.stderr,
        )
        return EXIT_USAGE
    return run(words, READING, version=lambda: f"asheard {__version__} (client)")


def run(
    words: Sequence[str], commands: Mapping[str, Command], *, version: Callable[[], str]
) -> int:
    """Run one command; its exit status.

    Args:
        words: The command and its arguments.
        commands: Those there are, by name.
        version: What ``--version`` prints.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(commands))
        return EXIT_DONE if words else EXIT_USAGE
    name = words[0]
    if name == "--version":
        print(version())
        return EXIT_DONE
    command = commands.get(name)
    if command is None:
        print(f"asheard: no command {name!r}\n\n{_overview(commands)}", file=sys.stderr)
        return EXIT_USAGE
    module = cast(CommandModule, importlib.import_module(command.module))
    parser = argparse.ArgumentParser(
        prog=f"asheard {name}", description=f"asheard {name}: {command.summary}"
    )
    module.add_arguments(parser)
    args = parser.parse_args(words[1:])
    try:
        return module.run(args)
    except ConfigurationError as error:
        print(f"asheard {name}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except AsheardError as error:
        print(f"asheard {name}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED


def _overview(commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands))
    rows = "\n".join(f"  {name:<{width}}  {row.summary}" for name, row in commands.items())
    return (
        "asheard says which words the caller heard.\n\n"
        f"usage: asheard COMMAND [--help] …\n       asheard --version\n\n{rows}"
    )
