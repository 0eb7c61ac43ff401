"""The connection that the reading commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import grpc

from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceStub
from cli.read.config import ReaderConfig
from runtime.errors import (
    AsheardError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    Unavailable,
)

DEADLINE_S = 10.0
"""For an answer at once; following a call takes as long as the call."""

Metadata = tuple[tuple[str, str | bytes], ...]


class ReadFailed(AsheardError):
    """The transcript service refused. The text says why."""


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
def connected(args: argparse.Namespace) -> Iterator[tuple[TranscriptServiceStub, Metadata]]:
    """A stub, and the metadata to call it with.

    Raises:
        ConfigurationError: The target is not one.
        AsheardError: The service refused what was asked within.
    """
    environment = dict(os.environ)
    if args.target:
        environment["ASHEARD_TRANSCRIPT_TARGET"] = args.target
    config = ReaderConfig.from_env(environment)
    target = config.target
    token = args.token or config.token
    metadata: Metadata = (("authorization", f"Bearer {token}"),) if token else ()
    options = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
    tls = args.tls or config.tls_ca is not None
    with (
        grpc.secure_channel(target, _authorities(config.tls_ca), options=options)
        if tls
        else grpc.insecure_channel(target, options=options)
    ) as channel:
        try:
            yield TranscriptServiceStub(channel), metadata
        except grpc.RpcError as error:
            # Every error that a call raises is that call; grpc's types do not say so.
            raise _in_words(cast(grpc.Call, cast(object, error)), target) from error


def _authorities(path: Path | None) -> grpc.ChannelCredentials:
    """Whose certificates are trusted: those in a file, or those that gRPC brings."""
    if path is None:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"ASHEARD_TLS_CA={path}: {error.strerror}") from error


def _in_words(error: grpc.Call, target: str) -> AsheardError:
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(details)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(details)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(f"no answer from the transcript service at {target}: {details}")
        case grpc.StatusCode.UNAUTHENTICATED:
            return ReadFailed(f"{details}; give --token")
        case _:
            return ReadFailed(details)
