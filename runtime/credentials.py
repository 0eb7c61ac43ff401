"""What a process proves itself with and knows others by: secrets and certificates out of files.

The files are followed: a secret or a certificate is replaced without a restart. What replaces them
and makes no sense is logged, and what was read before stays good.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from runtime.errors import ConfigurationError
from runtime.log import get_log
from runtime.trust import TLS_NAMES, TlsFiles, Trust, digest, refusal, secrets_in

log = get_log(__name__)

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files of :class:`TlsFiles` hold."""

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes


class Credentials:
    """What this process proves itself with, and knows others by; its files are followed.

    Args:
        trust: What the environment says.

    Raises:
        ConfigurationError: A file is unusable.
    """

    def __init__(self, trust: Trust | None = None) -> None:
        trust = trust or Trust()
        self._secrets: _Followed[_Secrets] | None = None
        self._pem: _Followed[Pem] | None = None
        self._constant: _Secrets | None = None
        if trust.secret is not None:
            self._constant = _Secrets.of(secrets_in(trust.secret, "ASHEARD_INTERNAL_SECRET"))
        if (path := trust.secret_file) is not None:
            self._secrets = _Followed("secret", (path,), lambda: _read_secrets(path))
        if (files := trust.tls) is not None:
            self._pem = _Followed(
                "certificate", (files.cert, files.key, files.ca), lambda: read_pem(files)
            )

    @property
    def metadata(self) -> Metadata:
        """What goes with each stream and request to another part of the system."""
        secrets = self._current()
        return (("authorization", f"Bearer {secrets.first}"),) if secrets is not None else ()

    def refusal(self, authorization: str | None) -> str | None:
        """Why a peer is not one of ours; None when it is, or when there is no secret."""
        secrets = self._current()
        return refusal(authorization, secrets.digests) if secrets is not None else None

    @property
    def pem(self) -> Pem | None:
        """Certificates and key as they stand; None: clear text. The same object until they
        change."""
        return self._pem.current() if self._pem is not None else None

    def _current(self) -> _Secrets | None:
        return self._secrets.current() if self._secrets is not None else self._constant


@dataclass(frozen=True, slots=True)
class _Secrets:
    first: str = field(repr=False)
    digests: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, secrets: tuple[str, ...]) -> _Secrets:
        return cls(secrets[0], tuple(map(digest, secrets)))


Value = TypeVar("Value")


class _Followed(Generic[Value]):
    """What was made of some files; made anew when one of them is another, or was written to.

    To look costs a stat of each, and is done when the value is asked for.
    """

    def __init__(self, what: str, paths: tuple[Path, ...], make: Callable[[], Value]) -> None:
        self._what = what
        self._paths = paths
        self._make = make
        self._lock = threading.Lock()  # gRPC asks for certificates in threads of its own
        self._seen = self._look()
        self._value = make()

    def current(self) -> Value:
        """The value as it stands; the old one while the files make no sense."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen  # looked at before it is read: what is written meanwhile is seen
                try:
                    self._value = self._make()
                except ConfigurationError as error:
                    log.error(f"{self._what} unusable, the one before stays", reason=str(error))
                else:
                    log.info(f"{self._what} read again")
            return self._value

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}={path}: {error.strerror}") from error


def _read_secrets(path: Path) -> _Secrets:
    name = "ASHEARD_INTERNAL_SECRET_FILE"
    text = _read(name, path).decode("utf-8", "replace")
    return _Secrets.of(secrets_in(text, f"{name}={path}"))


def read_pem(files: TlsFiles) -> Pem:
    """Read the files and see that they are usable together.

    Raises:
        ConfigurationError: One is not there, is no PEM, or key and certificate are not a pair.
    """
    paths = (files.cert, files.key, files.ca)
    cert, key, ca = (_read(name, path) for name, path in zip(TLS_NAMES, paths, strict=True))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would ask for its password at the terminal.
        context.load_cert_chain(files.cert, files.key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"ASHEARD_TLS_CERT={files.cert}, ASHEARD_TLS_KEY={files.key}: not a certificate and "
            f"its unencrypted key, in PEM ({getattr(error, 'reason', None) or 'unreadable'})"
        ) from error
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
        authorities = context.cert_store_stats()["x509"]
    except (ssl.SSLError, ValueError):
        authorities = 0
    if not authorities:
        raise ConfigurationError(f"ASHEARD_TLS_CA={files.ca}: holds no certificate in PEM")
    if (files.cert.read_bytes(), files.key.read_bytes()) != (cert, key):
        raise ConfigurationError(f"ASHEARD_TLS_CERT={files.cert}: is being written to")
    return Pem(cert, key, ca)
