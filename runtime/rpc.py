"""A gRPC server with the standard health service and server reflection, and channels to one.

Options: messages up to 16 MiB (a batch of 10,000 facts, the transcript of a day-long call);
keepalive pings find a peer that vanished without a word, and the server allows them: within half a
minute as a rule, and within three seconds on the links that carry calls (:data:`LINK`). Connections
are bounded in number, and in time while nobody calls on them: what strangers open must never be all
of the process' descriptors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runtime.config import Address
from runtime.credentials import Credentials, Pem
from runtime.errors import ConfigurationError
from runtime.http import descriptor_bound

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Liveness(NamedTuple):
    """How soon a peer that vanished is noticed: after both times together, at the latest."""

    ping_ms: int
    """How long nothing may come before a ping is sent."""
    answer_ms: int
    """How long its answer may take, and as long the network may take to acknowledge what was
    sent (gRPC makes it the socket's TCP_USER_TIMEOUT), since a ping waits until other data is
    sent."""


USUAL = Liveness(ping_ms=20_000, answer_ms=5_000)
"""More often than load balancers time out what is idle; half a minute is soon enough for facts."""

LINK = Liveness(ping_ms=700, answer_ms=2_200)
"""Of the links between gateways and session workers, three seconds together: a caller hears nothing
until it is noticed. A peer that is halted for two seconds is not lost, nor one whose event loop is
busy: gRPC answers pings in threads of its own, without Python."""

HANDSHAKE_MS = 10_000
"""How long a connection may take to begin HTTP/2, with TLS where there is any: as long as a
request's header at the HTTP ports (:data:`runtime.http.HEADER_S`)."""

IDLE_MS = 600_000
"""How long a connection without a call is kept. Links and watchers always have one; writers have
one every ten seconds; a reader that comes again connects again, without noticing."""

_COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # How long after a failed attempt the next may wait. By default that grows to two minutes while
    # a service is away, and so long it would not hear of us when it is back: it takes writers that
    # it does not hear of for lost. As tried: after 130 s away it took 45 s, and with this 5.
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

_SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON_OPTIONS,
    ("grpc.http2.max_ping_strikes", 0),
    # Two processes that share a port by accident would split the calls between them in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_idle_ms", IDLE_MS),
)


def max_connections() -> int:
    """To one gRPC port: a third of what strangers may have, since a service has up to three ports
    beside the admin port (:func:`runtime.http.descriptor_bound`). One more is closed at once."""
    return descriptor_bound() // 3


def _keepalive(liveness: Liveness) -> list[tuple[str, int]]:
    return [
        ("grpc.keepalive_time_ms", liveness.ping_ms),
        ("grpc.keepalive_timeout_ms", liveness.answer_ms),
        # As tried with gRPC 1.85, it is this one that ends a silent connection: a minute by
        # default.
        ("grpc.http2.ping_timeout_ms", liveness.answer_ms),
        # Half of it, so that a peer's ping that comes a little early is none too many.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", liveness.ping_ms // 2),
    ]


class GrpcServer:
    """A grpc.aio server; add servicers to :attr:`server`, then :meth:`start`.

    Args:
        address: Where to listen; port 0 lets the system choose.
        services: Full names of the services, for health and reflection.
        liveness: How soon a client that vanished is noticed.
        credentials: With certificates the port speaks TLS; None: clear text.
        guard: Who may call. With one, TLS demands the peer's certificate too. None: each method
            decides by itself.
    """

    def __init__(
        self,
        address: Address,
        services: Iterable[str],
        *,
        liveness: Liveness = USUAL,
        credentials: Credentials | None = None,
        guard: grpc.aio.ServerInterceptor | None = None,
    ) -> None:
        self._address = address
        self._services = tuple(services)
        self._port = address.port
        self._credentials = credentials or Credentials()
        self._guarded = guard is not None
        self.server = grpc.aio.server(
            interceptors=() if guard is None else (guard,),
            options=[
                *_SERVER_OPTIONS,
                ("grpc.max_allowed_incoming_connections", max_connections()),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                *_keepalive(liveness),
            ],
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
            if self._credentials.pem is None:
                self._port = self.server.add_insecure_port(str(self._address))
            else:
                self._port = self.server.add_secure_port(
                    str(self._address),
                    _server_credentials(self._credentials, peers_too=self._guarded),
                )
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


def channel(
    target: str,
    liveness: Liveness = USUAL,
    *,
    credentials: Credentials | None = None,
    name: str | None = None,
) -> grpc.aio.Channel:
    """A channel to one of our services.

    Args:
        target: gRPC target.
        liveness: How soon it is noticed that the service vanished.
        credentials: With certificates it speaks TLS and shows ours, as they are now: it keeps to
            them for its life. None: clear text.
        name: What the peer's certificate must be for, when it is not the host in ``target``.
    """
    pem = credentials.pem if credentials is not None else None
    options: list[tuple[str, int | str]] = [*_COMMON_OPTIONS, *_keepalive(liveness)]
    if pem is None:
        return grpc.aio.insecure_channel(target, options=options)
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(
        target, grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert), options=options
    )


class Connection:
    """A channel for single requests, built anew when our certificates changed."""

    def __init__(self, target: str, credentials: Credentials) -> None:
        self._target = target
        self._credentials = credentials
        self._pem = credentials.pem
        self._channel = channel(target, credentials=credentials)

    async def current(self) -> grpc.aio.Channel:
        """The channel to make the next request on. None may be under way on the one before."""
        if self._credentials.pem is not self._pem:
            await self._channel.close()
            self._pem = self._credentials.pem
            self._channel = channel(self._target, credentials=self._credentials)
        return self._channel

    async def close(self) -> None:
        """Close it."""
        await self._channel.close()


def _server_credentials(credentials: Credentials, *, peers_too: bool) -> grpc.ServerCredentials:
    """Certificates for a port: those that stand when a peer connects."""
    given = credentials.pem

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        pem = credentials.pem
        if pem is given or pem is None:
            return None  # as before
        given = pem
        return _configuration(pem)

    if given is None:
        raise AssertionError("a port without certificates is one in clear text")
    # None for "as before" is what gRPC says; its type stubs do not know it.
    asked = cast(Callable[[], grpc.ServerCertificateConfiguration], newer)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), asked, require_client_authentication=peers_too
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.cert)], root_certificates=pem.ca
    )
