"""What the transcript service needs to know, from the environment."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from runtime.config import Address, Environment, address, inner_address, whole_number
from runtime.errors import ConfigurationError
from runtime.trust import Trust


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
                env, "ASHEARD_STREAM_GRACE_SECONDS", 30, minimum=1, maximum=3600
            ),
            writer_lost_s=whole_number(
                env, "ASHEARD_WRITER_LOST_SECONDS", 90, minimum=1, maximum=86400
            ),
        )


def api_tokens(env: Environment) -> tuple[ApiToken, ...]:
    """Read ``ASHEARD_API_TOKENS``: entries, comma separated."""
    entries = (
        text for raw in env.get("ASHEARD_API_TOKENS", "").split(",") if (text := raw.strip())
    )
    return tuple(ApiToken.parse(entry, number) for number, entry in enumerate(entries, 1))
