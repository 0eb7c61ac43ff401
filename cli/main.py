"""``asheard COMMAND`` with the whole system: the reading commands, the services, the tools.

Each command is imported only when it is asked for: a gateway does not load an aligner.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from asheard import __version__
from asheard.main import READING, Command, run

COMMANDS: dict[str, Command] = {
    "up": Command("cli.up", "serve the whole system on this machine until Ctrl-C"),
    "gateway": Command("cli.services.gateway", "the gateway, in the foreground"),
    "session": Command("cli.services.session", "a session worker, in the foreground"),
    "transcript": Command("cli.services.transcript", "the transcript service, in the foreground"),
    **READING,
    "trace": Command("cli.trace", "turn a call's stored facts into a playhead scenario"),
    "align": Command("words.command", "word times of a piece of speech"),
    "simulate": Command("simulators.command", "the Twilio and the Realtime simulator"),
    "demo": Command("cli.demo", "one bakery call through all services; exit 0 if heard right"),
    "bench": Command("bench.command", "the benchmarks"),
}

GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"
"""gRPC's sockets without its EventEngine, which hands every message from thread to thread: at the
200 messages a second of a link that is 7 % of a session worker's CPU (docs/adr/0003). What the
operator has set stays."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)  # read when gRPC is imported
    words = list(sys.argv[1:] if argv is None else argv)
    return run(words, COMMANDS, version=_version)


def _version() -> str:
    from native import COMPILED

    return f"asheard {__version__} (system, {'compiled' if COMPILED else 'Python alone'})"


if __name__ == "__main__":
    sys.exit(main())
