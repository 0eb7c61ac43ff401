"""What the transcript service needs to know, from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from asheard.config import ApiToken, api_tokens
from runtime.config import Address, Environment, address, inner_address, whole_number
from runtime.errors import ConfigurationError
from runtime.trust import Trust


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
    """A process that was not heard of for so long is lost, and what it was writing with it. They
    say that they live every ten seconds."""

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
