"""Settings of those who read transcripts, from environment variables.

What the transcript service reads in the same way stands here, too: its tokens.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asheard.errors import ConfigurationError

Environment = Mapping[str, str]

DEFAULT_TARGET = "127.0.0.1:50071"
"""Where a transcript service on this machine serves readers."""


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

        The scopes are what follows the last colon: a token that holds one itself needs them.

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
                f"ASHEARD_API_TOKENS: what stands after the last colon of entry {number} is no scope: "
                f"give TOKEN or TOKEN:SCOPE+SCOPE, out of {', '.join(Scope)} (a token that holds a "
                "colon needs its scopes)"
            ) from None
        if not token:
            raise ConfigurationError(f"ASHEARD_API_TOKENS: entry {number} has scopes and no token")
        return cls(token, frozenset(Scope) if Scope.ADMIN in scopes else scopes)


def api_tokens(env: Environment) -> tuple[ApiToken, ...]:
    """Read ``ASHEARD_API_TOKENS``: entries, comma separated.

    Raises:
        ConfigurationError: One of them is not an entry.
    """
    entries = (
        text for raw in env.get("ASHEARD_API_TOKENS", "").split(",") if (text := raw.strip())
    )
    return tuple(ApiToken.parse(entry, number) for number, entry in enumerate(entries, 1))


def check_target(name: str, target: str) -> None:
    """See that a gRPC target is ``HOST:PORT`` or ``dns:///NAME:PORT``.

    Raises:
        ConfigurationError: It is neither. The text begins with ``name``.
    """
    host, colon, port = target.removeprefix("dns:///").rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"{name}={target!r}: give HOST:PORT or dns:///NAME:PORT")


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
        target = env.get("ASHEARD_TRANSCRIPT_TARGET") or DEFAULT_TARGET
        check_target("ASHEARD_TRANSCRIPT_TARGET", target)
        reading = (entry.token for entry in api_tokens(env) if Scope.READ in entry.scopes)
        authority = env.get("ASHEARD_TLS_CA")
        return cls(
            target=target,
            tls_ca=Path(authority) if authority else None,
            token=next(reading, None),
        )
