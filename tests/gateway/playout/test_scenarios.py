"""The golden calls in ``tests/scenarios/playout``: inputs in, positions and evidence out.

``ASHEARD_REWRITE_SCENARIOS=1`` brings their answers up to date instead of holding them against today's; who
commits such a change can explain it. What the prose promises about the truth is held either way.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gateway.playout import Cause, PositionFixed
from gateway.playout.replay import ScenarioError, answers, read_scenario, rewrite
from tests.gateway.playout.record_scenarios import FOLDER, SCENARIOS, record

FILES = sorted(FOLDER.glob("*.txt"))

TRUTH = re.compile(r"# Truth: (\S+)/(\d+) ([A-Z_]+) ([\d.]+) ms, best within (\d+) ms\.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_answers_are_those_written_down(path: Path) -> None:
    text = path.read_text()
    today = rewrite(text)
    if os.environ.get("ASHEARD_REWRITE_SCENARIOS"):
        path.write_text(today)
    else:
        assert today == text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_truth_is_where_the_prose_says(path: Path) -> None:
    text = path.read_text()
    fixed = {
        (e.position.part.item_id, e.position.part.content_index): e
        for e in answers(text)
        if isinstance(e, PositionFixed)
    }
    truths = TRUTH.findall(text)
    assert len(truths) == len(fixed)
    for item_id, index, cause, truth, within in truths:
        found = fixed[item_id, int(index)]
        position = found.position
        assert found.cause is Cause[cause]
        assert position.low_ms <= float(truth) < position.high_ms + 1
        assert abs(position.best_ms - float(truth)) <= int(within) + 1


def test_every_case_has_its_file() -> None:
    assert {path.stem for path in FILES} >= {scenario.name for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_files_are_what_the_reference_carrier_plays(scenario: object) -> None:
    """A change of the carrier that would change the calls does not go unseen."""
    found = next(s for s in SCENARIOS if s is scenario)
    inputs = read_scenario(record(found))
    assert inputs == read_scenario((FOLDER / f"{found.name}.txt").read_text())


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("nonsense", "line 1: expected 'at MS"),
        ("at 1.000 media - eaten p1", "line 1: expected 'at MS"),
        ("at 1.000 media - sent nothing", "line 1: expected ITEM/INDEX"),
        ("at 1.000 media - cleared soon", "line 1: expected a number"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, wanted: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(wanted)):
        read_scenario(line)
