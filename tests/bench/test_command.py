"""``asheard bench`` on the command line."""

from __future__ import annotations

import argparse

import msgspec
import pytest

from bench import command
from cli.main import main


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_sizes_are_lists_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("compare", "--calls", "10,200").calls == [10, 200]
    with pytest.raises(SystemExit):
        parse("compare", "--calls", "10;200")
    assert "give whole numbers" in capsys.readouterr().err


def test_a_bench_must_be_named() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench"])
    assert ended.value.code == 2


def test_one_call_through_the_yardstick_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "calls", "--system", "yardstick", "--calls", "1", "--seconds", "1"]) == 0
    printed = capsys.readouterr()
    [line] = printed.out.splitlines()
    result = msgspec.json.decode(line)
    assert (result["bench"], result["system"], result["calls"]) == ("calls", "yardstick", 1)
    assert result["frames"]["lost"] == 0
    assert "yardstick at 1 calls" in printed.err


def test_a_running_system_can_be_measured_by_its_address() -> None:
    words = ("calls", "--target", "ws://127.0.0.1:1/twilio/media", "--pid", "bridge=1")
    args = parse(*words)
    assert args.pid == ["bridge=1"]
