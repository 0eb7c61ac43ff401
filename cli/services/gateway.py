"""``asheard gateway``: the gateway, configured by the environment."""

from __future__ import annotations

import argparse

from cli.services import many
from gateway.config import GatewayConfig
from gateway.service import serve
from runtime.config import Environment
from runtime.process import Stop, run_service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One; all else comes from the environment (docs/configuration.md)."""
    many.add_argument(parser)
    parser.epilog = "Configured by environment variables: see docs/configuration.md."


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM has drained it, or a second one ends it at once."""
    if args.processes > 1:
        return many.run("gateway", args.processes)
    return run_service("gateway", _serve)


async def _serve(environment: Environment, stop: Stop) -> None:
    await serve(GatewayConfig.from_env(environment), stop)
