"""The command line as a user meets it: help, bad usage, bad configuration. Real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asheard import __version__
from asheard.main import OF_THE_SYSTEM, READING
from cli.main import COMMANDS
from cli.system import clean_environment


def asheard(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command() -> None:
    result = asheard("--help")
    assert result.returncode == 0
    for name, command in COMMANDS.items():
        assert name in result.stdout
        assert command.summary in result.stdout


def test_the_client_knows_which_commands_only_the_system_has() -> None:
    assert set(COMMANDS) == {*READING, *OF_THE_SYSTEM}


@pytest.mark.parametrize(("native", "said"), [("python", "Python alone"), ("", "")])
def test_the_version_says_whether_the_compiled_half_runs(native: str, said: str) -> None:
    result = asheard("--version", ASHEARD_NATIVE=native)
    assert result.returncode == 0
    assert result.stdout.startswith(f"asheard {__version__} (system, ")
    assert said in result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_takes_help(name: str) -> None:
    result = asheard(name, "--help")
    assert result.returncode == 0, result.stderr
    assert f"asheard {name}" in result.stdout


@pytest.mark.parametrize("arguments", [(), ("fly",), ("up", "--sessions", "0"), ("get",)])
def test_bad_usage_is_exit_status_2_with_the_reason_on_standard_error(
    arguments: tuple[str, ...],
) -> None:
    result = asheard(*arguments)
    assert result.returncode == 2
    assert "usage" in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("gateway",), {}, "TWILIO_AUTH_TOKEN"),
        (("session",), {}, "OPENAI_API_KEY"),
        (("session",), {"ASHEARD_REALTIME_URL": "ws://127.0.0.1:1/"}, "ASHEARD_SESSION_LISTEN"),
        (
            ("session", "--processes", "4"),
            {"ASHEARD_REALTIME_URL": "ws://127.0.0.1:1/"},
            "ASHEARD_SESSION_LISTEN",
        ),
        (("transcript",), {"ASHEARD_STORE": "oracle://x"}, "ASHEARD_STORE"),
        (("transcript",), {"ASHEARD_INTERNAL_SECRET_FILE": "/no/such/file"}, "/no/such/file"),
        (("gateway",), {"TWILIO_AUTH_TOKEN": "t", "ASHEARD_TLS_CA": "ca.pem"}, "ASHEARD_TLS_CERT"),
        (("up",), {}, "TWILIO_AUTH_TOKEN"),
        (("up",), {"ASHEARD_TWILIO_VALIDATE": "off"}, "OPENAI_API_KEY"),
        (
            ("session",),
            {
                "ASHEARD_REALTIME_URL": "ws://127.0.0.1:1/",
                "ASHEARD_SESSION_LISTEN": "127.0.0.1:0",
                "ASHEARD_AGENT": "/no/such/file.yaml",
            },
            "ASHEARD_AGENT",
        ),
    ],
)
def test_bad_configuration_is_exit_status_2_and_one_line_that_names_the_variable(
    arguments: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    result = asheard(*arguments, **environment)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
