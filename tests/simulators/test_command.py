"""``asheard simulate`` as a process and as a function."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.errors import ConfigurationError
from simulators import command
from simulators.realtime import SessionTruth
from simulators.twilio import CallTruth

ROOT = Path(__file__).parents[2]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "simulate", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def wait_until_it_listens_to(number: signal.Signals, program: subprocess.Popen[str]) -> None:
    """Wait until a process has a handler for a signal: before, the signal would just kill it."""
    status = Path(f"/proc/{program.pid}/status")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        caught = next(line for line in status.read_text().splitlines() if "SigCgt" in line)
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.02)
    raise AssertionError("it does not listen to the signal")


def test_realtime_serves_until_sigterm_and_writes_the_truth(tmp_path: Path) -> None:
    truth_file = tmp_path / "sessions.jsonl"
    with process("realtime", "--listen", "127.0.0.1:0", "--truth", str(truth_file)) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        caller = tmp_path / "caller.yaml"
        caller.write_text("end: {hang_up: true, when: {elapsed_ms: 100}}")
        # The model's end is no media server: the stream fails, and the call says so.
        args = parsed("twilio", url, "--script", str(caller), "--truth", str(tmp_path / "calls"))
        assert command.run(args) in (0, 1)
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
    session = SessionTruth.from_json(truth_file.read_text().splitlines()[0])
    assert session.refusals, "a Twilio frame is no client event"
    call = CallTruth.from_json((tmp_path / "calls").read_text().splitlines()[0])
    assert call.frames_sent > 0


def test_stopped_call_still_writes_its_truth(tmp_path: Path) -> None:
    truth_file = tmp_path / "calls.jsonl"
    with process("realtime", "--listen", "0") as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        with process("twilio", url, "--truth", str(truth_file)) as caller:
            wait_until_it_listens_to(signal.SIGTERM, caller)
            with pytest.raises(subprocess.TimeoutExpired):
                caller.wait(1.5)
            caller.send_signal(signal.SIGTERM)
            assert caller.wait(10) == 1
    assert CallTruth.from_json(truth_file.read_text()).frames_sent > 0


def test_call_that_fails_is_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(parsed("twilio", "ws://127.0.0.1:1/media", "--calls", "2")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("failed" in line and "31902" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["twilio", "localhost"], "must begin with http://"),
        (["twilio", "ws://h/", "--calls", "0"], "--calls"),
        (["twilio", "ws://h/", "--script", "/no/such.yaml"], "/no/such.yaml: No such file"),
        (["realtime", "--script", "/no/such.yaml"], "/no/such.yaml: No such file"),
        (["realtime", "--speed", "0"], "--speed"),
        (["realtime", "--expire-s", "-1"], "--expire-s"),
        (["realtime", "--listen", "192.0.2.1:1"], "--listen 192.0.2.1:1"),
    ],
)
def test_bad_options_are_named(words: list[str], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        command.run(parsed(*words))


@pytest.mark.parametrize(
    "words",
    [
        ["twilio", "ws://h/", "--delay-ms", "soon"],
        ["twilio", "ws://h/", "--marks-lost", "2"],
        ["realtime", "--listen", "here"],
        [],
    ],
)
def test_unreadable_options_are_usage_errors(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*words)
    assert caught.value.code == 2
