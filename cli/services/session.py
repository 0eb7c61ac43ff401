"""``asheard session``: a session worker, configured by the environment."""

from __future__ import annotations

import argparse

from cli.services import many
from runtime.config import Environment
from runtime.process import Stop, run_service
from session.config import SessionConfig
from session.service import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One; all else comes from the environment (docs/configuration.md)."""
    many.add_argument(parser)
    parser.epilog = "Configured by environment variables: see docs/configuration.md."


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM has drained it, or a second one ends it at once."""
    if args.processes > 1:
        return many.run("session", args.processes)
    return run_service("session", _serve)


async def _serve(environment: Environment, stop: Stop) -> None:
    await serve(SessionConfig.from_env(environment), stop)
