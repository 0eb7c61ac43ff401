"""Each fuzz target runs and finds nothing; and what there is to be found is found, and can be again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from fuzz import mutate
from fuzz.harness import Report, run_cases

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", ["gateway", "native", "model", "facts", "agent"])
def test_two_seconds_of_odd_input_find_nothing(target: str) -> None:
    command = [sys.executable, "-m", "fuzz", "--seconds", "2", "--seed", "1", target]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-2_000:]
    assert f"{target}: " in run.stdout and ": 0 findings" in run.stdout


class _Faulty:
    """A target with a fault that one case in four shows, and a slower one that it swallows."""

    def __enter__(self) -> _Faulty:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def case(self, random: Random) -> int:
        if random.random() < 0.25:
            raise ValueError("odd")
        return 1


def test_a_finding_names_the_case_that_shows_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_cases("faulty", _Faulty, seed=7, seconds=0.05, case=None)
    (finding,) = report.findings
    assert finding.what.startswith("ValueError in tests/fuzz/test_targets.py:")
    assert f"python -m fuzz --seed 7 --case {finding.case} faulty" in capsys.readouterr().out
    again = run_cases("faulty", _Faulty, seed=7, seconds=60, case=finding.case)
    assert [one.what for one in again.findings] == [finding.what]
    assert run_cases("faulty", _Faulty, seed=7, seconds=60, case=finding.case).cases == 1


def test_a_process_that_dies_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import session.agent, os\n"
        "def load_agent(path):\n    os.abort()\n"
        "session.agent.load_agent = load_agent\n"
    )
    command = [sys.executable, "-m", "fuzz", "--seconds", "1", "--seed", "3", "agent"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110
    )
    assert run.returncode == 1
    assert "the process ended with status -6" in run.stdout
    assert "--seed 3 --case 0 agent" in run.stdout


def test_cases_are_the_same_for_the_same_seed() -> None:
    good = {"event": "media", "media": {"timestamp": "20", "payload": "////"}, "list": [1, 2]}
    texts = [
        [mutate.as_json(Random(n), mutate.mutated(Random(n), good)) for n in range(200)]
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 100
    assert good == {
        "event": "media",
        "media": {"timestamp": "20", "payload": "////"},
        "list": [1, 2],
    }


def test_a_report_counts_like_findings_once() -> None:
    report = Report("x", 1)
    report.add(1, "a fault", "")
    report.add(2, "a fault", "")
    report.add(3, "another", "")
    assert [finding.case for finding in report.findings] == [1, 3]
