"""A gRPC server with the standard health service and server reflection, and channels to one.

Options: messages up to 16 MiB (a batch of 10,000 facts, the transcript of a day-long call);
keepalive pings find a peer that vanished without a word, and the server allows them: within half a
minute as a rule, and within three seconds on the links that carry calls (:data:`LINK`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runtime.config import Address
from runtime.errors import ConfigurationError

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Liveness(NamedTuple):
    """How soon a peer that vanished is noticed: after both times together, at the latest."""

    ping_ms: int
    """How long nothing may come before a ping is sent."""
    answer_ms: int
    """How long its answer may take, and as long the network may take to acknowledge what was
    sent (gRPC makes it the socket's TCP_USER_TIMEOUT), since a ping waits behind other data."""


USUAL = Liveness(ping_ms=20_000, answer_ms=5_000)
"""Behind the idle time-outs of load balancers, and half a minute is soon enough for facts."""

LINK = Liveness(ping_ms=700, answer_ms=2_200)
"""Of the links between gateways and session workers, three seconds together: a caller hears nothing
until it is noticed. A peer that is halted for two seconds is not lost, nor one whose event loop is
busy: gRPC answers pings in threads of its own, without Python."""

_COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

_SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON_OPTIONS,
    ("grpc.http2.max_ping_strikes", 0),
    # Two processes that share a port by accident would split the calls between them in silence.
    ("grpc.so_reuseport", 0),
)


def _keepalive(liveness: Liveness) -> list[tuple[str, int]]:
    return [
        ("grpc.keepalive_time_ms", liveness.ping_ms),
        ("grpc.keepalive_timeout_ms", liveness.answer_ms),
        # As tried with gRPC 1.85, it is this one that ends a silent connection: a minute by default.
        ("grpc.http2.ping_timeout_ms", liveness.answer_ms),
        # Half of it, so that a peer's ping that comes a little early is none too many.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", liveness.ping_ms // 2),
    ]


class GrpcServer:
    """A grpc.aio server; add servicers to :attr:`server`, then :meth:`start`.

    Args:
        address: Where to listen; port 0 lets the system choose.
        services: Full names of the services, for health and reflection.
        interceptors: Server interceptors, outermost first.
        liveness: How soon a client that vanished is noticed.
    """

    def __init__(
        self,
        address: Address,
        services: Iterable[str],
        interceptors: Iterable[grpc.aio.ServerInterceptor] = (),
        *,
        liveness: Liveness = USUAL,
    ) -> None:
        self._address = address
        self._services = tuple(services)
        self._port = address.port
        self.server = grpc.aio.server(
            interceptors=tuple(interceptors),
            options=[*_SERVER_OPTIONS, *_keepalive(liveness)],
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection(
            (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME), self.server
        )

    @property
    def port(self) -> int:
        """The port it listens at, once started."""
        return self._port

    async def start(self) -> None:
        """Open the port and say NOT_SERVING until :meth:`set_serving`.

        Raises:
            ConfigurationError: The address cannot be listened at.
        """
        await self.set_serving(False)
        try:
            self._port = self.server.add_insecure_port(str(self._address))
        except RuntimeError as error:
            raise ConfigurationError(
                f"gRPC port {self._address} cannot be listened at; choose another"
            ) from error
        await self.server.start()

    async def set_serving(self, serving: bool) -> None:
        """What the health service answers, for the server as a whole and each service."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._services):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, give those under way ``grace_s`` seconds, close."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


def channel(target: str, liveness: Liveness = USUAL) -> grpc.aio.Channel:
    """A channel to one of our services, in clear text: TLS between pods is the mesh's affair.

    Args:
        target: ``host:port``.
        liveness: How soon it is noticed that the service vanished.
    """
    return grpc.aio.insecure_channel(target, options=[*_COMMON_OPTIONS, *_keepalive(liveness)])
