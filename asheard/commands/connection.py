"""What the reading commands share: where the service is, who asks, how it is shown."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from asheard.client import Client, connect
from asheard.config import ReaderConfig
from asheard.errors import ConfigurationError, Unauthenticated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what all reading commands take."""
    parser.add_argument(
        "--target",
        metavar="HOST:PORT",
        help="the transcript service (default: ASHEARD_TRANSCRIPT_TARGET, or 127.0.0.1:50071)",
    )
    parser.add_argument(
        "--token",
        help="one of the service's ASHEARD_API_TOKENS (default: the first in that variable here that "
        "may read); others on this machine can see it in the list of processes",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="TLS, by the authorities of gRPC; with ASHEARD_TLS_CA set it is on, by that one",
    )
    parser.add_argument("--json", action="store_true", help="JSON, for machines")


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Client]:
    """A client, as the arguments and the environment have it.

    Raises:
        ConfigurationError: A setting is unusable.
        AsheardError: The service refused what was asked within.
    """
    environment = dict(os.environ)
    if args.target:
        environment["ASHEARD_TRANSCRIPT_TARGET"] = args.target
    config = ReaderConfig.from_env(environment)
    try:
        client = connect(
            config.target, token=args.token or config.token, tls=args.tls, tls_ca=config.tls_ca
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"ASHEARD_TLS_CA={error}") from error
    with client:
        try:
            yield client
        except Unauthenticated as error:
            raise Unauthenticated(f"{error}; give --token") from error
