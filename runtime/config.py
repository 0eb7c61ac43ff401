"""Configuration: environment variables, read once, checked before a port opens.

Each service has one frozen dataclass, built by ``from_env(mapping)``. Nothing else in the project
reads the environment. A bad value is one :class:`~runtime.errors.ConfigurationError` that names
the variable, the value's fault and the fix; secrets are not repeated in it.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import ConfigurationError
from runtime.trust import MAKE_ONE, Trust
from runtime.url import split_url

Environment = Mapping[str, str]

REUSE_PORT = "ASHEARD_GATEWAY_REUSE_PORT"
"""Set to ``on`` by ``--processes`` for gateways that share one public port. Not for operators: two
gateways started by mistake would share their calls in silence."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen at."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def offset(self, by: int) -> Address:
        """The same host, ``by`` ports further."""
        return Address(self.host, self.port + by)


def address(env: Environment, name: str, default: str) -> Address:
    """Read ``HOST:PORT`` (``[::1]:PORT`` for IPv6); port 0 lets the system choose."""
    value = env.get(name) or default
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"{name}={value!r}: give HOST:PORT, such as {default}")
    return Address(host, int(port))


def whole_number(env: Environment, name: str, default: int, *, least: int, most: int) -> int:
    """Read an integer between ``least`` and ``most``."""
    value = env.get(name) or str(default)
    if not value.isdigit() or not least <= int(value) <= most:
        raise ConfigurationError(f"{name}={value!r}: give a whole number from {least} to {most}")
    return int(value)


def choice(env: Environment, name: str, default: str, choices: tuple[str, ...]) -> str:
    """Read one word out of ``choices``."""
    value = env.get(name) or default
    if value not in choices:
        raise ConfigurationError(f"{name}={value!r}: give one of {', '.join(choices)}")
    return value


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine and cannot be reached from another."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def inner_address(env: Environment, name: str, default: str, trust: Trust) -> Address:
    """Read an address for parts of the system alone: beyond loopback they must prove themselves."""
    listen = address(env, name, default)
    if not trust.tells_apart and not is_loopback(listen.host):
        raise ConfigurationError(
            f"{name}={listen} can be reached from other machines, and nothing tells the parts of "
            f"this system from strangers: give all of them one secret (`{MAKE_ONE}`) by "
            f"ASHEARD_INTERNAL_SECRET_FILE, or set {name}=127.0.0.1:{listen.port}"
        )
    return listen


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How log lines look."""

    format: str = "text"
    """``text`` for people, ``json`` for machines."""
    level: str = "info"

    @classmethod
    def from_env(cls, env: Environment) -> LogConfig:
        return cls(
            format=choice(env, "ASHEARD_LOG_FORMAT", "text", ("text", "json")),
            level=choice(env, "ASHEARD_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        )


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What a gateway needs to know."""

    listen: Address
    admin: Address
    session_targets: tuple[str, ...]
    """gRPC targets of session workers: ``host:port`` each, or one ``dns:///name:port``."""
    ingest_target: str
    """gRPC target of the transcript service's port for facts."""
    public_url: str | None = None
    """Public base URL without a trailing slash. None: derived from each request."""
    twilio_auth_token: str | None = field(default=None, repr=False)
    """None: signatures are not checked, which the operator has asked for in so many words."""
    drain_s: int = 3600
    """How long calls may go on after SIGTERM."""
    reuse_port: bool = False
    """Whether other processes of this gateway listen at the same port."""
    trust: Trust = Trust()

    @classmethod
    def from_env(cls, env: Environment) -> GatewayConfig:
        token = env.get("TWILIO_AUTH_TOKEN") or None
        validate = choice(env, "ASHEARD_TWILIO_VALIDATE", "on", ("on", "off"))
        if token is None and validate == "on":
            raise ConfigurationError(
                "TWILIO_AUTH_TOKEN is not set: set it to your account's primary auth token, or "
                "set ASHEARD_TWILIO_VALIDATE=off to serve anybody without checking signatures"
            )
        return cls(
            listen=address(env, "ASHEARD_GATEWAY_LISTEN", "0.0.0.0:8080"),
            admin=address(env, "ASHEARD_GATEWAY_ADMIN", "0.0.0.0:9101"),
            session_targets=session_targets(env),
            ingest_target=ingest_target(env),
            public_url=public_url(env),
            twilio_auth_token=token,
            drain_s=whole_number(env, "ASHEARD_DRAIN_SECONDS", 3600, least=0, most=86400),
            reuse_port=choice(env, REUSE_PORT, "off", ("on", "off")) == "on",
            trust=Trust.from_env(env),
        )


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session worker needs to know."""

    listen: Address
    admin: Address
    ingest_target: str
    """gRPC target of the transcript service's port for facts."""
    realtime_url: str
    realtime_model: str
    openai_api_key: str | None = field(default=None, repr=False)
    """None only when ``realtime_url`` is on loopback."""
    agent_path: Path | None = None
    """None: the bundled bakery agent."""
    max_calls: int = 200
    max_lag_ms: int = 100
    """No new calls while the event loop is usually later than this."""
    align: str = "cut"
    """Which items' words are aligned: ``all``, ``cut`` (those that were interrupted), ``off``."""
    drain_s: int = 3600
    trust: Trust = Trust()

    @classmethod
    def from_env(cls, env: Environment) -> SessionConfig:
        trust = Trust.from_env(env)
        url = env.get("ASHEARD_REALTIME_URL") or "wss://api.openai.com/v1/realtime"
        parts = split_url(url)
        if parts is None or parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ConfigurationError(
                f"ASHEARD_REALTIME_URL={url!r}: give a ws:// or wss:// URL, without the model query"
            )
        key = env.get("OPENAI_API_KEY") or None
        if key is None and not is_loopback(parts.hostname):
            raise ConfigurationError(
                "OPENAI_API_KEY is not set: set it, or point ASHEARD_REALTIME_URL at loopback"
            )
        agent = env.get("ASHEARD_AGENT")
        return cls(
            listen=inner_address(env, "ASHEARD_SESSION_LISTEN", "0.0.0.0:50061", trust),
            admin=address(env, "ASHEARD_SESSION_ADMIN", "0.0.0.0:9103"),
            ingest_target=ingest_target(env),
            realtime_url=url,
            realtime_model=env.get("ASHEARD_REALTIME_MODEL") or "gpt-realtime-2.1",
            openai_api_key=key,
            agent_path=Path(agent) if agent else None,
            max_calls=whole_number(env, "ASHEARD_SESSION_MAX_CALLS", 200, least=1, most=100_000),
            max_lag_ms=whole_number(env, "ASHEARD_SESSION_MAX_LAG_MS", 100, least=10, most=60_000),
            align=choice(env, "ASHEARD_ALIGN", "cut", ("all", "cut", "off")),
            drain_s=whole_number(env, "ASHEARD_DRAIN_SECONDS", 3600, least=0, most=86400),
            trust=trust,
        )


class Scope(enum.StrEnum):
    """What the bearer of a token may do."""

    READ = "read"
    DELETE = "delete"
    ADMIN = "admin"
    """Everything."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An entry of ASHEARD_API_TOKENS."""

    token: str = field(repr=False)
    scopes: frozenset[Scope]
    """With ADMIN, all of them."""

    @classmethod
    def parse(cls, entry: str, number: int) -> ApiToken:
        """Read ``token`` or ``token:scope+scope``; without scopes it may read.

        The scopes are what is behind the last colon: a token that holds one itself needs them.

        Args:
            entry: Without blanks around it.
            number: Of the entry, from 1: the error names it by that, since it is a secret.

        Raises:
            ConfigurationError: A scope is none of ours, or there is no token.
        """
        token, colon, names = entry.rpartition(":")
        if not colon:
            return cls(entry, frozenset({Scope.READ}))
        try:
            scopes = frozenset(map(Scope, names.split("+")))
        except ValueError:
            raise ConfigurationError(
                f"ASHEARD_API_TOKENS: what stands behind the last colon of entry {number} is no scope: "
                f"give TOKEN or TOKEN:SCOPE+SCOPE, out of {', '.join(Scope)} (a token that holds a "
                "colon needs its scopes)"
            ) from None
        if not token:
            raise ConfigurationError(f"ASHEARD_API_TOKENS: entry {number} has scopes and no token")
        return cls(token, frozenset(Scope) if Scope.ADMIN in scopes else scopes)


@dataclass(frozen=True, slots=True)
class TranscriptConfig:
    """What the transcript service needs to know."""

    listen: Address
    """For readers."""
    ingest: Address
    """For the system's own writers."""
    admin: Address
    viewer: Address
    store: str
    """``sqlite:///PATH`` or ``postgresql://…``."""
    api_tokens: tuple[ApiToken, ...] = ()
    """Who may do what with transcripts. Empty: only peers on loopback, and those everything."""
    trust: Trust = Trust()
    stream_grace_s: float = 30.0
    """How long after a media stream that ended otherwise than by a hang-up Twilio may ask for a new
    one: a call is final after it."""
    writer_lost_s: float = 90.0
    """A process that was not heard of for so long is lost, and what it was writing with it. They say
    that they live every ten seconds."""

    @classmethod
    def from_env(cls, env: Environment) -> TranscriptConfig:
        trust = Trust.from_env(env)
        store = env.get("ASHEARD_STORE") or "sqlite:///asheard.db"
        if not store.startswith(("sqlite:///", "postgresql://")) or store == "sqlite:///":
            raise ConfigurationError(
                f"ASHEARD_STORE begins with {store.partition(':')[0]!r}: "
                "give sqlite:///PATH or postgresql://USER@HOST/DATABASE"
            )
        return cls(
            listen=address(env, "ASHEARD_TRANSCRIPT_LISTEN", "0.0.0.0:50071"),
            ingest=inner_address(env, "ASHEARD_INGEST_LISTEN", "127.0.0.1:50072", trust),
            admin=address(env, "ASHEARD_TRANSCRIPT_ADMIN", "0.0.0.0:9102"),
            viewer=address(env, "ASHEARD_VIEWER_LISTEN", "127.0.0.1:8090"),
            store=store,
            api_tokens=api_tokens(env),
            trust=trust,
            stream_grace_s=whole_number(
                env, "ASHEARD_STREAM_GRACE_SECONDS", 30, least=1, most=3600
            ),
            writer_lost_s=whole_number(env, "ASHEARD_WRITER_LOST_SECONDS", 90, least=1, most=86400),
        )


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """What the reading commands need to know."""

    target: str
    """gRPC target of the transcript service's port for readers."""
    tls_ca: Path | None = None
    """Whose certificates the service is known by. None: clear text, unless TLS is asked for."""
    token: str | None = field(default=None, repr=False)
    """None: loopback peers need none."""

    @classmethod
    def from_env(cls, env: Environment) -> ReaderConfig:
        target = env.get("ASHEARD_TRANSCRIPT_TARGET") or "127.0.0.1:50071"
        _check_target("ASHEARD_TRANSCRIPT_TARGET", target)
        reading = (entry.token for entry in api_tokens(env) if Scope.READ in entry.scopes)
        authority = env.get("ASHEARD_TLS_CA")
        return cls(
            target=target,
            tls_ca=Path(authority) if authority else None,
            token=next(reading, None),
        )


def api_tokens(env: Environment) -> tuple[ApiToken, ...]:
    """Read ``ASHEARD_API_TOKENS``: entries, comma separated."""
    entries = (
        text for raw in env.get("ASHEARD_API_TOKENS", "").split(",") if (text := raw.strip())
    )
    return tuple(ApiToken.parse(entry, number) for number, entry in enumerate(entries, 1))


def session_targets(env: Environment) -> tuple[str, ...]:
    """Read ``ASHEARD_SESSION_TARGETS``: ``host:port`` each, comma separated, or ``dns:///name:port``."""
    value = env.get("ASHEARD_SESSION_TARGETS") or "127.0.0.1:50061"
    targets = tuple(target for t in value.split(",") if (target := t.strip()))
    for target in targets:
        _check_target("ASHEARD_SESSION_TARGETS", target)
    if not targets:
        raise ConfigurationError(
            "ASHEARD_SESSION_TARGETS names no target: give HOST:PORT[,HOST:PORT…]"
        )
    return targets


def ingest_target(env: Environment) -> str:
    """Read ``ASHEARD_INGEST_TARGET``, where writers append facts.

    Whoever names a transcript service elsewhere by ``ASHEARD_TRANSCRIPT_TARGET`` alone, which was
    enough when readers and writers shared a port, is told so: facts would go to a port of this
    machine at which nobody listens.
    """
    value = env.get("ASHEARD_INGEST_TARGET")
    if not value:
        readers = env.get("ASHEARD_TRANSCRIPT_TARGET") or ""
        host = readers.removeprefix("dns:///").rpartition(":")[0]
        if host and not is_loopback(host.removeprefix("[").removesuffix("]")):
            raise ConfigurationError(
                f"ASHEARD_INGEST_TARGET is not set, and ASHEARD_TRANSCRIPT_TARGET={readers} is for "
                f"reading only: set ASHEARD_INGEST_TARGET={host}:50072, and ASHEARD_INGEST_LISTEN "
                "at the transcript service"
            )
        return "127.0.0.1:50072"
    _check_target("ASHEARD_INGEST_TARGET", value)
    return value


def public_url(env: Environment) -> str | None:
    """Read ``ASHEARD_PUBLIC_URL``, without a trailing slash."""
    value = env.get("ASHEARD_PUBLIC_URL")
    if not value:
        return None
    parts = split_url(value)
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
    ):
        raise ConfigurationError(
            f"ASHEARD_PUBLIC_URL={value!r}: give the base URL that Twilio calls, "
            "such as https://voice.example.com"
        )
    return value.rstrip("/")


def _check_target(name: str, target: str) -> None:
    host, colon, port = target.removeprefix("dns:///").rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"{name}={target!r}: give HOST:PORT or dns:///NAME:PORT")
