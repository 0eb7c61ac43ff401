"""``asheard transcript``: the transcript service, configured by the environment."""

from __future__ import annotations

import argparse

from runtime.config import Environment
from runtime.process import Stop, run_service
from transcript.config import TranscriptConfig
from transcript.service import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: everything comes from the environment (docs/configuration.md)."""
    parser.epilog = "Configured by environment variables: see docs/configuration.md."


def run(_args: argparse.Namespace) -> int:
    """Serve until SIGTERM has drained it, or a second one ends it at once."""
    return run_service("transcript", _serve)


async def _serve(environment: Environment, stop: Stop) -> None:
    await serve(TranscriptConfig.from_env(environment), stop)
