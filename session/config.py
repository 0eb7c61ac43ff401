"""What a session worker needs to know, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runtime.config import (
    Address,
    Environment,
    address,
    choice,
    ingest_target,
    inner_address,
    is_loopback,
    whole_number,
)
from runtime.errors import ConfigurationError
from runtime.trust import Trust
from runtime.url import split_url


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
            max_calls=whole_number(
                env, "ASHEARD_SESSION_MAX_CALLS", 200, minimum=1, maximum=100_000
            ),
            max_lag_ms=whole_number(
                env, "ASHEARD_SESSION_MAX_LAG_MS", 100, minimum=10, maximum=60_000
            ),
            align=choice(env, "ASHEARD_ALIGN", "cut", ("all", "cut", "off")),
            drain_s=whole_number(env, "ASHEARD_DRAIN_SECONDS", 3600, minimum=0, maximum=86400),
            trust=trust,
        )
