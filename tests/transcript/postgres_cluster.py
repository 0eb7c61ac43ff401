"""A private PostgreSQL for tests: its own directory, a Unix socket, no TCP port."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg


class PostgresCluster:
    """A running cluster; :meth:`stop` and :meth:`start` as one likes, :meth:`remove` at the end."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._directory = Path(tempfile.mkdtemp(prefix="asheard-postgres-"))
        self._user: str | None = None
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            self._user = "postgres"
            shutil.chown(self._directory, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [binaries / "initdb", "-D", self._directory / "data", "-A", "trust", "-U", "asheard",
             "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True, capture_output=True, user=self._user, cwd=self._directory,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Of the cluster's one database."""
        return f"postgresql://asheard@/postgres?host={self._directory}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = (self._directory / "log").open("ab")
        self._process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self._directory / "data", "-k", self._directory,
             "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"],
            stdout=log, stderr=log, user=self._user, cwd=self._directory,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: immediate shutdown, with all its children
            self._process.wait(30)
            self._process = None

    def empty(self) -> None:
        """Drop all tables."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def remove(self) -> None:
        """Stop it and delete its files."""
        self.stop()
        shutil.rmtree(self._directory)


def find_binaries() -> Path | str:
    """Where initdb and postgres are, or the reason why they cannot be used."""
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "running as root, and there is no user `postgres` to run PostgreSQL as"
    # Debian keeps them out of PATH, one directory for each version.
    debian = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    found = debian[-1] if debian else shutil.which("initdb")
    if found is None or not (Path(found).resolve().parent / "postgres").exists():
        return "no PostgreSQL server is installed (Debian: apt install postgresql)"
    return Path(found).resolve().parent
