"""docs/operations.md: its table of ports is what the services open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cli.system import plan
from gateway.config import GatewayConfig
from runtime.config import Address, is_loopback
from session.config import SessionConfig
from tests.deploy.settings import ENOUGH
from transcript.config import TranscriptConfig

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def documented() -> Iterator[tuple[int, str, str]]:
    """(port, where it opens by itself, where under `asheard up`) of each row."""
    for line in PAGE.partition("## Ports\n")[2].partition("\n## ")[0].splitlines():
        if re.match(r"\| (gateway|session worker|transcript) \|", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            yield int(cells[1]), cells[-2], cells[-1]


def opened(
    gateway: GatewayConfig, session: SessionConfig, transcript: TranscriptConfig
) -> dict[int, str]:
    """Where each port opens."""
    addresses: list[Address] = [
        gateway.listen, gateway.admin, session.listen, session.admin,
        transcript.listen, transcript.ingest, transcript.viewer, transcript.admin,
    ]  # fmt: skip
    return {
        address.port: "loopback" if is_loopback(address.host) else "everywhere"
        for address in addresses
    }


def test_each_port_opens_where_the_page_says() -> None:
    alone = opened(
        GatewayConfig.from_env(ENOUGH[GatewayConfig]),
        SessionConfig.from_env(ENOUGH[SessionConfig]),
        TranscriptConfig.from_env(ENOUGH[TranscriptConfig]),
    )
    assert {port: by_itself for port, by_itself, _ in documented()} == alone


def test_a_local_system_opens_where_the_page_says() -> None:
    environment = {"ASHEARD_TWILIO_VALIDATE": "off", "OPENAI_API_KEY": "key"}
    transcript, session, gateway = (p.environment for p in plan(environment, sessions=1))
    together = opened(
        GatewayConfig.from_env(gateway),
        SessionConfig.from_env(session),
        TranscriptConfig.from_env(transcript),
    )
    assert {port: under_up for port, _, under_up in documented()} == together
