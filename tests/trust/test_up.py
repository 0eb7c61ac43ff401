"""``asheard up`` as the machine sees it: where it listens, and that its secrets do not show.

It runs in a network of its own, so that the default ports are free whatever else runs here.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from cli.system import clean_environment
from tests.trust.parts import OURS

ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:  # loopback is down in a new network: SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))
os.execv(sys.executable, [sys.executable, "-m", "cli.main", "up", "--sessions", "1"])
"""

UNSHARE = ("unshare", "--net", "--map-root-user")

INNER = {50061, 50071, 50072, 8090, 9101, 9102, 9103}
PUBLIC = 8080


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


needs_own_network = pytest.mark.skipif(
    not can_unshare(), reason="this machine gives no network of its own (unshare --net)"
)


@contextmanager
def up(directory: Path, **settings: str) -> Iterator[tuple[int, Path]]:
    """The system, ready; its process and its log."""
    log = directory / "log"
    environment = {
        **clean_environment(),
        "ASHEARD_TWILIO_VALIDATE": "off",
        "ASHEARD_REALTIME_URL": "ws://127.0.0.1:1/v1/realtime",
        "ASHEARD_STORE": f"sqlite:///{directory}/asheard.db",
        "ASHEARD_LOG_LEVEL": "debug",
        **settings,
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [*UNSHARE, sys.executable, "-c", ALONE],
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline_s = time.monotonic() + 60
        while "ready: transcripts at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield process.pid, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()


def listening(pid: int) -> dict[int, IPv4Address | IPv6Address]:
    """Where the processes of its network listen: address by port."""
    found: dict[int, IPv4Address | IPv6Address] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":  # LISTEN
                host, _, port = local.partition(":")
                # Words of four bytes, each in the machine's own order.
                words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
                address = ip_address(b"".join(words))
                mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
                found[int(port, 16)] = mapped or address  # gRPC's are ::ffff:127.0.0.1
    return found


@needs_own_network
def test_only_the_public_port_can_be_reached_and_no_secret_shows(tmp_path: Path) -> None:
    token = "reader-0123456789abcdef"
    settings = {"ASHEARD_INTERNAL_SECRET": OURS, "ASHEARD_API_TOKENS": f"{token}:read"}
    with up(tmp_path, **settings) as (pid, log):
        ports = listening(pid)
        assert set(ports) == {PUBLIC, *INNER}
        assert ports[PUBLIC].is_unspecified
        assert all(ports[port].is_loopback for port in INNER)

        seen = [line for line in map(_command, Path("/proc").iterdir()) if b"cli.main" in line]
        assert seen
    said = log.read_text()
    assert "session worker linked" in said, "they prove themselves to each other"
    assert said.count("trust='a secret'") == 3
    for secret in (OURS, token):
        assert secret not in said
        assert not any(secret.encode() in line for line in seen)


def _command(process: Path) -> bytes:
    """What `ps` shows of a process; nothing of one that has ended, or is none."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_beyond_loopback_it_does_not_start_without_a_secret(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "cli.main", "up"],
        env={
            **clean_environment(),
            "ASHEARD_TWILIO_VALIDATE": "off",
            "ASHEARD_REALTIME_URL": "ws://127.0.0.1:1/v1/realtime",
            "ASHEARD_SESSION_LISTEN": "0.0.0.0:50061",
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert "ASHEARD_SESSION_LISTEN=0.0.0.0:50061" in line
    assert "openssl rand -hex 32" in line
