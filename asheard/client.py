"""A client of ``asheard.v1.TranscriptService``, for programs.

Messages are those of :mod:`asheard.v1`; errors are those of :mod:`asheard.errors`. A client may be
used by several threads. For asyncio, use ``TranscriptServiceStub`` on a channel of ``grpc.aio``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import cast

import grpc

from asheard.config import DEFAULT_TARGET, check_target
from asheard.errors import (
    AsheardError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ServiceFailed,
    Unauthenticated,
    Unavailable,
)
from asheard.v1.transcript_pb2 import CallState, Transcript
from asheard.v1.transcript_service_pb2 import (
    CheckHeardRequest,
    CheckHeardResponse,
    DeleteTranscriptRequest,
    GetTranscriptRequest,
    ListCallsRequest,
    ListCallsResponse,
    WatchTranscriptRequest,
)
from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceStub

DEADLINE_S = 10.0
"""For an answer at once; following a call takes as long as the call."""

MAX_PAGE = 1000
"""Calls in one answer, at the service."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The transcript of a day-long call is far below."""


def connect(
    target: str = DEFAULT_TARGET,
    *,
    token: str | None = None,
    tls: bool = False,
    tls_ca: Path | None = None,
    deadline_s: float = DEADLINE_S,
) -> Client:
    """A client of the transcript service at ``target``. The connection is made at the first
    request.

    Args:
        target: ``HOST:PORT`` or ``dns:///NAME:PORT``.
        token: One of the service's ``ASHEARD_API_TOKENS``. None: a service on this machine may need
            none.
        tls: Whether to speak TLS; the authorities are those that gRPC brings.
        tls_ca: A PEM file with the authority that the service is known by; TLS then.
        deadline_s: How long an answer may take, in seconds.

    Raises:
        ConfigurationError: The target is not one, or the file cannot be read.
    """
    check_target("target", target)
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    if tls or tls_ca is not None:
        channel = grpc.secure_channel(target, _authorities(tls_ca), options=options)
    else:
        channel = grpc.insecure_channel(target, options=options)
    return Client(channel, target, token=token, deadline_s=deadline_s)


class Client:
    """Reads and deletes transcripts. :func:`connect` makes one; use it in a ``with``, or close it.

    Every method raises an error of :mod:`asheard.errors` when the service does not do what it is
    asked for.

    Args:
        channel: Is closed with the client.
        target: Names the service in errors.
        token: Proves who asks; None: nothing does.
        deadline_s: How long an answer may take, in seconds.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        target: str,
        *,
        token: str | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._channel = channel
        self._service = TranscriptServiceStub(channel)
        self._target = target
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._deadline_s = deadline_s

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a :meth:`watch` under way ends."""
        self._channel.close()

    def get(self, call_sid: str) -> Transcript:
        """The transcript of a call as it stands."""
        with self._errors():
            return self._service.GetTranscript(
                GetTranscriptRequest(call_sid=call_sid),
                metadata=self._metadata,
                timeout=self._deadline_s,
            ).transcript

    def watch(self, call_sid: str) -> Iterator[Transcript]:
        """The transcript as it stands, then after every change; ends when it is final."""
        with self._errors():
            changes = self._service.WatchTranscript(
                WatchTranscriptRequest(call_sid=call_sid), metadata=self._metadata
            )
            try:
                for change in changes:
                    yield change.transcript
            finally:
                changes.cancel()

    def list(
        self,
        *,
        state: CallState.ValueType = CallState.CALL_STATE_UNSPECIFIED,
        number: str = "",
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        limit: int = 100,
        page_token: str = "",
    ) -> ListCallsResponse:
        """Calls, newest first.

        Args:
            state: Only calls in this state.
            number: Only calls from or to exactly this number.
            started_after: Only calls that started then or later; with its time zone.
            started_before: Only calls that started earlier; with its time zone.
            limit: At most so many.
            page_token: Goes on where another answer ended: its ``next_page_token``.

        Returns:
            The calls; ``next_page_token`` is set when there are older ones.
        """
        request = ListCallsRequest(number=number, state=state, page_token=page_token)
        if started_after is not None:
            request.started_after.FromDatetime(started_after)
        if started_before is not None:
            request.started_before.FromDatetime(started_before)
        listed = ListCallsResponse()
        with self._errors():
            while len(listed.calls) < limit:
                request.page_size = min(MAX_PAGE, limit - len(listed.calls))
                page = self._service.ListCalls(
                    request, metadata=self._metadata, timeout=self._deadline_s
                )
                listed.calls.extend(page.calls)
                request.page_token = listed.next_page_token = page.next_page_token
                if not page.next_page_token:
                    break
        return listed

    def check_heard(self, call_sid: str, passage: str) -> CheckHeardResponse:
        """Whether the caller heard these words: all, part, or none of them, and in which turns."""
        with self._errors():
            return self._service.CheckHeard(
                CheckHeardRequest(call_sid=call_sid, passage=passage),
                metadata=self._metadata,
                timeout=self._deadline_s,
            )

    def delete(self, call_sid: str) -> None:
        """Delete everything about a call; needs a token with the scope ``delete``."""
        with self._errors():
            self._service.DeleteTranscript(
                DeleteTranscriptRequest(call_sid=call_sid),
                metadata=self._metadata,
                timeout=self._deadline_s,
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            # Every error that a call raises is that call; grpc's types do not say so.
            raise _in_words(cast(grpc.Call, cast(object, error)), self._target) from error


def _authorities(path: Path | None) -> grpc.ChannelCredentials:
    """Whose certificates are trusted: those in a file, or those that gRPC brings."""
    if path is None:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


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
            return Unauthenticated(details)
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied(details)
        case _:
            return ServiceFailed(details)
