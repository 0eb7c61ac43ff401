"""Readers of environment variables, and what several services have in common.

Each service has one frozen dataclass in its own ``config.py``, built by ``from_env(mapping)``
before a port opens. Nothing else in the project reads the environment. A bad value is one
:class:`~runtime.errors.ConfigurationError` that names the variable, the value's fault and the fix;
secrets are not repeated in it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from asheard.config import Environment as Environment
from asheard.config import check_target
from runtime.errors import ConfigurationError
from runtime.trust import MAKE_ONE, Trust


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


def whole_number(env: Environment, name: str, default: int, *, minimum: int, maximum: int) -> int:
    """Read an integer between ``minimum`` and ``maximum``."""
    value = env.get(name) or str(default)
    if not value.isdigit() or not minimum <= int(value) <= maximum:
        raise ConfigurationError(
            f"{name}={value!r}: give a whole number from {minimum} to {maximum}"
        )
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
    check_target("ASHEARD_INGEST_TARGET", value)
    return value
