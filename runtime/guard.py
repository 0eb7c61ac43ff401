"""Who may call a port that is for the parts of this system alone, and what becomes of others."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health
from prometheus_client import CollectorRegistry, Counter

from runtime.credentials import Credentials
from runtime.log import get_log
from runtime.trust import Pace

log = get_log(__name__)


class Refusals:
    """What becomes of those who cannot prove themselves: counted, and logged at a bounded pace."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pace = Pace()
        self.count = Counter(
            "asheard_unauthenticated",
            "Streams and requests of peers that did not prove themselves, by what they asked for.",
            ["service"],
            registry=registry,
        )

    def note(self, service: str, peer: str, reason: str) -> None:
        """Note a refusal.

        Args:
            service: What was asked for; one of a few names.
            peer: gRPC's name of the peer; its port, another with each connection, is left out.
            reason: Without any secret.
        """
        self.count.labels(service).inc()
        host = peer.rpartition(":")[0]
        if (refused := self._pace.due(host, time.monotonic())) is not None:
            log.warning("peer refused", peer=host, service=service, reason=reason, refused=refused)


class Guard(grpc.aio.ServerInterceptor):
    """Lets in the parts of this system alone, once for each stream or request.

    The health service stays open: probes have no secret.

    Args:
        service: What to count refusals under.
        credentials: Tell who is one of us.
        refusals: Where to count.
    """

    def __init__(self, service: str, credentials: Credentials, refusals: Refusals) -> None:
        self._service = service
        self._credentials = credentials
        self._refusals = refusals

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Give the method that was asked for, or one that refuses."""
        reason = self._credentials.refusal(authorization(handler_call_details.invocation_metadata))
        if reason is None or handler_call_details.method.startswith(_OPEN):
            return await continuation(handler_call_details)

        async def refuse(
            _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> None:
            self._refusals.note(self._service, context.peer(), reason)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)

        # As if every method were a stream: nothing of what a stranger sends is read.
        return grpc.stream_stream_rpc_method_handler(refuse)


_OPEN = f"/{health.SERVICE_NAME}/"


def authorization(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """The first `authorization` of a request; None when there is none."""
    for key, value in metadata or ():
        if key == "authorization":
            return value if isinstance(value, str) else None
    return None
