"""What the reading commands need to know, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runtime.config import Environment, check_target
from transcript.config import Scope, api_tokens


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
        check_target("ASHEARD_TRANSCRIPT_TARGET", target)
        reading = (entry.token for entry in api_tokens(env) if Scope.READ in entry.scopes)
        authority = env.get("ASHEARD_TLS_CA")
        return cls(
            target=target,
            tls_ca=Path(authority) if authority else None,
            token=next(reading, None),
        )
