"""docs/configuration.md: every variable that is read is on it, with its true default."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from asheard.config import ReaderConfig
from gateway.config import GatewayConfig
from runtime.config import LogConfig
from session.config import SessionConfig
from tests.deploy.settings import ENOUGH, read_by
from transcript.config import TranscriptConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()

SECTIONS: Mapping[str, tuple[Any, ...]] = {
    "The gateway": (GatewayConfig,),
    "A session worker": (SessionConfig,),
    "The transcript service": (TranscriptConfig,),
    "Gateway and session worker": (GatewayConfig, SessionConfig),
    "The reading commands": (ReaderConfig,),
    "Trust between the services": (GatewayConfig, SessionConfig, TranscriptConfig),
    "Every service": (LogConfig,),
}
"""Who reads the variables of a section of the page."""

OF_ANOTHER_SECTION: Mapping[Any, set[str]] = {
    # Only to tell a writer that it is for readers.
    GatewayConfig: {"ASHEARD_TRANSCRIPT_TARGET"},
    SessionConfig: {"ASHEARD_TRANSCRIPT_TARGET"},
    # The transcript service's: the first is what the commands read with.
    # And the authority that is the services' own.
    ReaderConfig: {"ASHEARD_API_TOKENS", "ASHEARD_TLS_CA"},
}
"""What a configuration looks at beside its own."""

SECRET = "0123456789abcdef" * 4
TLS = {"ASHEARD_TLS_CERT": "cert.pem", "ASHEARD_TLS_KEY": "key.pem", "ASHEARD_TLS_CA": "ca.pem"}

INTERNAL = {
    "ASHEARD_GATEWAY_REUSE_PORT",
    "ASHEARD_GATEWAY_TURNS",
    "ASHEARD_NATIVE",
    "ASHEARD_SUPERVISED",
}


def documented() -> Iterator[tuple[str, str, str | None]]:
    """(section, variable, default or None) of each row."""
    section = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif row := re.match(r"\| `([A-Z_]+)` \| (none|`([^`]+)`) \| \S", line):
            yield section, row[1], row[3]
        else:
            assert not line.startswith("| `"), f"not a row as the others are: {line}"


ROWS = list(documented())


def test_a_section_has_what_its_services_read_and_no_variable_is_in_two() -> None:
    names = [name for _, name, _ in ROWS]
    assert len(names) == len(set(names))
    for config in ENOUGH:
        on_the_page = {name for section, name, _ in ROWS if config in SECTIONS[section]}
        own = read_by(config) - INTERNAL - OF_ANOTHER_SECTION.get(config, set())
        assert on_the_page == own, config.__name__


def test_no_other_variable_is_named_in_the_code() -> None:
    packages = [
        "asheard", "bench", "cli", "gateway", "native", "runtime", "session", "simulators",
        "transcript", "words",
    ]  # fmt: skip
    named: set[str] = set()
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    # A whole string that is a name; texts about variables are no readings.
                    named |= set(re.findall(r"^(?:ASHEARD|TWILIO|OPENAI)_[A-Z_]+$", node.value))
    assert named - INTERNAL == {name for _, name, _ in ROWS}
    assert all(name in PAGE for name in INTERNAL)


@pytest.mark.parametrize(
    ("name", "default", "config"),
    [
        pytest.param(name, default, config, id=f"{name}-{config.__name__}")
        for section, name, default in ROWS
        for config in SECTIONS[section]
    ],
)
def test_a_default_is_what_an_unset_variable_means(
    name: str, default: str | None, config: Any
) -> None:
    without = {key: value for key, value in ENOUGH[config].items() if key != name}
    # Something else has to make it start, where the variable itself is what makes it start.
    without |= {
        "OPENAI_API_KEY": {"ASHEARD_REALTIME_URL": "ws://127.0.0.1:1"},
        "ASHEARD_TWILIO_VALIDATE": {"TWILIO_AUTH_TOKEN": "token"},
        "ASHEARD_INTERNAL_SECRET_FILE": {"ASHEARD_INTERNAL_SECRET": SECRET},
    }.get(name, {})
    if name == "ASHEARD_INTERNAL_SECRET":
        without.pop("ASHEARD_INTERNAL_SECRET_FILE", None)
        without |= TLS
    unset = config.from_env(without)
    assert config.from_env({**without, name: ""}) == unset, "empty is unset"
    if default is not None:
        assert config.from_env({**without, name: default}) == unset


def test_every_variable_makes_a_difference() -> None:
    another = {
        "ASHEARD_STORE": "sqlite:///other.db",
        "ASHEARD_PUBLIC_URL": "https://other.example.com",
        "ASHEARD_REALTIME_URL": "wss://other.example.com",
        "ASHEARD_ALIGN": "off",
        "ASHEARD_LOG_FORMAT": "json",
        "ASHEARD_LOG_LEVEL": "debug",
        "ASHEARD_SESSION_MAX_LAG_MS": "70",
        "ASHEARD_INTERNAL_SECRET": SECRET,
        "ASHEARD_INGEST_LISTEN": "127.0.0.1:5",  # anywhere else it needs a secret
    }
    for section, name, _ in ROWS:
        if name == "ASHEARD_TWILIO_VALIDATE":
            continue  # it decides whether the gateway starts, which its own test says
        value = another.get(name, "1.2.3.4:5" if re.search("LISTEN|ADMIN|TARGET", name) else "7")
        for config in SECTIONS[section]:
            enough = dict(ENOUGH[config])
            if name == "ASHEARD_INTERNAL_SECRET":  # instead of the file
                enough = {**enough, "ASHEARD_INTERNAL_SECRET_FILE": ""} | TLS
            elif name in TLS:
                enough |= TLS
            assert config.from_env({**enough, name: value}) != config.from_env(enough), name
