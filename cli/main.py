"""``asheard COMMAND``: finds the command's module and runs it.

Each command is a module with ``add_arguments(parser)`` and ``run(args) -> int``, imported only when
it is asked for: a gateway does not load an aligner. Exit status: 0 done, 1 the thing asked for did
not work out, 2 bad usage or configuration.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from runtime.errors import AsheardError, ConfigurationError
from runtime.process import EXIT_FAILED, EXIT_USAGE


class Command(NamedTuple):
    """A row of the table of commands."""

    module: str
    summary: str


class CommandModule(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit status."""


COMMANDS: dict[str, Command] = {
    "up": Command("cli.up", "serve the whole system on this machine until Ctrl-C"),
    "gateway": Command("cli.services.gateway", "the gateway, in the foreground"),
    "session": Command("cli.services.session", "a session worker, in the foreground"),
    "transcript": Command("cli.services.transcript", "the transcript service, in the foreground"),
    "get": Command("cli.read.get", "print the transcript of a call"),
    "watch": Command("cli.read.watch", "follow the transcript of a call"),
    "calls": Command("cli.read.calls", "list calls, newest first"),
    "check-heard": Command("cli.read.check_heard", "was this passage heard?"),
    "trace": Command("cli.trace", "turn a call's stored facts into a playhead scenario"),
    "align": Command("words.command", "word times of a piece of speech"),
    "simulate": Command("simulators.command", "the Twilio and the Realtime simulator"),
    "demo": Command("cli.demo", "one bakery call through all services; exit 0 if heard right"),
    "bench": Command("bench.command", "the benchmarks"),
}


GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"
"""gRPC's sockets without its EventEngine, which hands every message from thread to thread: at the
200 messages a second of a link that is 7 % of a session worker's CPU (docs/adr/0003). What the
operator has set goes before."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else EXIT_USAGE
    name = words[0]
    command = COMMANDS.get(name)
    if command is None:
        print(f"asheard: no command {name!r}\n\n{_overview()}", file=sys.stderr)
        return EXIT_USAGE
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)  # read when gRPC is imported
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


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {row.summary}" for name, row in COMMANDS.items())
    return (
        f"asheard says which words the caller heard.\n\nusage: asheard COMMAND [--help] …\n\n{rows}"
    )


if __name__ == "__main__":
    sys.exit(main())
