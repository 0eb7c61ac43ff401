"""How the parts of a system know each other: by a shared secret, by mutual TLS, or by both.

What the environment says of it, as values, and what follows from them; :mod:`runtime.credentials`
reads the files. The secret goes as ``authorization: Bearer SECRET`` with each stream and request.
Several are good at once while one replaces another: any is accepted, the first is sent.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import ConfigurationError

MIN_SECRET = 32
"""Characters of a secret, at least: 128 bits in hexadecimal, which nobody guesses at any
pace."""

MAX_SECRET = 1024
"""Characters, at most: gRPC takes 8 KiB of metadata with a request, names and all."""

MAX_SECRETS = 8
"""At once: two while one replaces the other; every request is compared with each."""

MAKE_ONE = "openssl rand -hex 32"
"""What a refusal of the configuration tells the operator to run."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of mutual TLS."""

    cert: Path
    """Our certificate, followed by those that lead to the authority's."""
    key: Path
    """Its private key, not encrypted."""
    ca: Path
    """Certificates of the authorities whose parts are ours."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What the environment says of trust. Neither secret nor files: everybody is trusted."""

    secret: str | None = field(default=None, repr=False)
    """One secret a line."""
    secret_file: Path | None = None
    """Holds one secret a line."""
    tls: TlsFiles | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Trust:
        """Read the variables; the files are read by :class:`runtime.credentials.Credentials`.

        Raises:
            ConfigurationError: The variables contradict each other or are incomplete.
        """
        secret, secret_file = (env.get(name) or None for name in SECRET_NAMES)
        if secret and secret_file:
            raise ConfigurationError(
                "ASHEARD_INTERNAL_SECRET and ASHEARD_INTERNAL_SECRET_FILE are both set: keep one, "
                "the file if the secret is ever to be replaced without a restart"
            )
        if secret:
            secrets_in(secret, "ASHEARD_INTERNAL_SECRET")
        files = {name: value for name in TLS_NAMES if (value := env.get(name))}
        missing = [name for name in TLS_NAMES if name not in files]
        if files and missing:
            raise ConfigurationError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: mutual "
                f"TLS needs {', '.join(TLS_NAMES)}, a PEM file each"
            )
        return cls(
            secret=secret,
            secret_file=Path(secret_file) if secret_file else None,
            tls=TlsFiles(*(Path(files[name]) for name in TLS_NAMES)) if files else None,
        )

    @property
    def means(self) -> str:
        """By what the parts are told from strangers, in words, for the log."""
        by_secret = self.secret is not None or self.secret_file is not None
        means = ["a secret"] * by_secret + ["mutual TLS"] * (self.tls is not None)
        return " and ".join(means) or "nothing"

    @property
    def tells_apart(self) -> bool:
        """Whether peers have to prove that they belong to this system."""
        return self != Trust()


SECRET_NAMES = ("ASHEARD_INTERNAL_SECRET", "ASHEARD_INTERNAL_SECRET_FILE")
TLS_NAMES = ("ASHEARD_TLS_CERT", "ASHEARD_TLS_KEY", "ASHEARD_TLS_CA")


def secrets_in(text: str, source: str) -> tuple[str, ...]:
    """The secrets of a text, one a line.

    Args:
        text: Blank lines and blanks around a secret do not matter.
        source: Where it came from, for the error; no secret is repeated in that.

    Raises:
        ConfigurationError: There is none, or one of them is unusable.
    """
    secrets = tuple(line for raw in text.splitlines() if (line := raw.strip()))
    if not secrets:
        raise ConfigurationError(f"{source} holds no secret: make one with `{MAKE_ONE}`")
    if len(secrets) > MAX_SECRETS:
        raise ConfigurationError(
            f"{source} holds {len(secrets)} secrets: at most {MAX_SECRETS}, one a line"
        )
    for number, secret in enumerate(secrets, 1):
        if not MIN_SECRET <= len(secret) <= MAX_SECRET:
            raise ConfigurationError(
                f"{source}: secret {number} has {len(secret)} characters: give {MIN_SECRET} to "
                f"{MAX_SECRET}, such as `{MAKE_ONE}` makes"
            )
        if not all("!" <= char <= "~" for char in secret):
            raise ConfigurationError(
                f"{source}: secret {number} has a blank or a character that is not ASCII: "
                f"make one with `{MAKE_ONE}`"
            )
    return secrets


def digest(secret: str) -> bytes:
    """What a secret is compared by: digests are of one length, whatever that of the secrets."""
    return hashlib.sha256(secret.encode()).digest()


def refusal(authorization: str | None, digests: Iterable[bytes]) -> str | None:
    """Why a peer is not one of ours; None when it is. Takes the same time for any wrong secret.

    Args:
        authorization: ``Bearer SECRET``; None when the peer sent nothing.
        digests: Of the secrets that are good.
    """
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        return "authorization: this port needs the secret of ASHEARD_INTERNAL_SECRET"
    theirs = digest(given)
    if sum(hmac.compare_digest(theirs, ours) for ours in digests) == 0:
        return "authorization: this is not the secret of ASHEARD_INTERNAL_SECRET here"
    return None


class Pace:
    """Which refusals are logged: of one peer one in a minute, with how many there were since.

    A stranger's process tries for ever, and there may be many of it.
    """

    EVERY_S = 60.0
    MAX_PEERS = 256
    """Beyond so many, all others share a place."""

    def __init__(self) -> None:
        self._peers: dict[str, tuple[float, int]] = {}
        """When the peer's next line is due, and its refusals since the last one."""

    def __len__(self) -> int:
        """How many peers it remembers."""
        return len(self._peers)

    def due(self, peer: str, now_s: float) -> int | None:
        """Note a refusal; how many a line should report, None when none is due."""
        if peer not in self._peers and len(self._peers) >= self.MAX_PEERS:
            gone = [key for key, (due_s, _) in self._peers.items() if due_s <= now_s]
            for key in gone:
                del self._peers[key]
            if len(self._peers) >= self.MAX_PEERS:
                peer = ""
        due_s, count = self._peers.get(peer, (now_s, 0))
        if now_s < due_s:
            self._peers[peer] = (due_s, count + 1)
            return None
        self._peers[peer] = (now_s + self.EVERY_S, 0)
        return count + 1
