"""``asheard session``: a session worker, configured by the environment."""

from __future__ import annotations

import argparse

from runtime.config import Environment, SessionConfig
from runtime.process import Stop, run_service
from session.service import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: everything comes from the environment (docs/configuration.md)."""
    parser.epilog = "Configured by environment variables: see docs/configuration.md."


def run(_args: argparse.Namespace) -> int:
    """Serve until SIGTERM has drained it, or a second one ends it at once."""
    return run_service("session", _serve)


async def _serve(environment: Environment, stop: Stop) -> None:
    await serve(SessionConfig.from_env(environment), stop)
