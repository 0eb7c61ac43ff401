"""What a gateway needs to know, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from asheard.config import check_target
from runtime.config import (
    Address,
    Environment,
    address,
    choice,
    ingest_target,
    whole_number,
)
from runtime.errors import ConfigurationError
from runtime.trust import Trust
from runtime.url import split_url

REUSE_PORT = "ASHEARD_GATEWAY_REUSE_PORT"
"""Set to ``on`` by ``--processes`` for gateways that share one public port. Not for operators: two
gateways started by mistake would share their calls in silence."""


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
            drain_s=whole_number(env, "ASHEARD_DRAIN_SECONDS", 3600, minimum=0, maximum=86400),
            reuse_port=choice(env, REUSE_PORT, "off", ("on", "off")) == "on",
            trust=Trust.from_env(env),
        )


def session_targets(env: Environment) -> tuple[str, ...]:
    """Read ``ASHEARD_SESSION_TARGETS``: ``host:port``, comma separated, or ``dns:///name:port``."""
    value = env.get("ASHEARD_SESSION_TARGETS") or "127.0.0.1:50061"
    targets = tuple(target for t in value.split(",") if (target := t.strip()))
    for target in targets:
        check_target("ASHEARD_SESSION_TARGETS", target)
    if not targets:
        raise ConfigurationError(
            "ASHEARD_SESSION_TARGETS names no target: give HOST:PORT[,HOST:PORT…]"
        )
    return targets


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
