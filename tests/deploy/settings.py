"""Which environment variables each configuration reads, found by watching it read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asheard.config import ReaderConfig
from gateway.config import GatewayConfig
from runtime.config import LogConfig
from session.config import SessionConfig
from transcript.config import TranscriptConfig

ENOUGH: Mapping[Any, Mapping[str, str]] = {
    GatewayConfig: {"ASHEARD_TWILIO_VALIDATE": "off"},
    SessionConfig: {"OPENAI_API_KEY": "key", "ASHEARD_INTERNAL_SECRET_FILE": "/run/secret"},
    TranscriptConfig: {},
    ReaderConfig: {},
    LogConfig: {},
}
"""The least that makes each of them start."""


def read_by(config: Any) -> set[str]:
    """Names of the variables that a configuration looks at."""
    environment = Recording(ENOUGH[config])
    config.from_env(environment)
    return environment.asked


class Recording(dict[str, str]):
    """An environment that knows what it was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> str:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)
