"""A gRPC server with the standard health service and server reflection, and channels to one.

Options: messages up to 16 MiB (a batch of 10,000 facts, the transcript of a day-long call);
keepalive pings every 20 s find a dead peer behind a load balancer in under half a minute, and the
server allows them.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runtime.config import Address
from runtime.errors import ConfigurationError

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

_SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON_OPTIONS,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Two processes that share a port by accident would split the calls between them in silence.
    ("grpc.so_reuseport", 0),
)


class GrpcServer:
    """A grpc.aio server; add servicers to :attr:`server`, then :meth:`start`.

    Args:
        address: Where to listen; port 0 lets the system choose.
        services: Full names of the services, for health and reflection.
        interceptors: Server interceptors, outermost first.
    """

    def __init__(
        self,
        address: Address,
        services: Iterable[str],
        interceptors: Iterable[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._address = address
        self._services = tuple(services)
        self._port = address.port
        self.server = grpc.aio.server(
            interceptors=tuple(interceptors), options=list(_SERVER_OPTIONS)
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


def channel(target: str) -> grpc.aio.Channel:
    """A channel to one of our services, in clear text: TLS between pods is the mesh's affair."""
    return grpc.aio.insecure_channel(target, options=list(_COMMON_OPTIONS))
