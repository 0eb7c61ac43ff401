"""Results as Markdown: what stands in ``docs/performance.md`` is made, not typed."""

from __future__ import annotations

import msgspec

from bench.score import Score
from bench.spread import Spread
from bench.system import SystemResult
from bench.table import cores_for, tables

ERRORS = Spread(50, 7.0, 18.0, 19.5)


def test_a_network_condition_is_a_row_and_each_way_is_one() -> None:
    scores = {
        name: Score(50, exact, wrong, ERRORS, 1.0)
        for name, exact, wrong in (
            ("transcript", 0.96, 0.04),
            ("characters_by_timestamps", 0.44, 0.8),
            ("newest_acknowledged_mark", 0.1, 2.5),
        )
    }
    result = SystemResult(
        network="good",
        calls=10,
        date="2026-11-23",
        cuts=50,
        heard=scores,
        range_width_ms=Spread(0, None, None, None),
        outside_range=0,
        barge_in_ms=ERRORS,
        calls_failed=0,
    )
    other = '{"bench":"words","status":0,"report":[]}'
    found = tables([msgspec.json.encode(result).decode(), other]).splitlines()
    good = "| good | 50 | 7 / 18 / 19.5 | – / – / – | 0 | 7 / 18 / 19.5 | 7 / 18 / 19.5 |"
    assert good in found
    assert "| asheard | 96% | 0.04 |" in found
    assert "| newest acknowledged mark | 10% | 2.50 |" in found


def test_cores_are_planned_with_room_to_spare() -> None:
    # 1,000 calls at 0.18 CPU-seconds a minute are 3 cores' work, and 5 cores at 60 %.
    assert cores_for(1000, 0.18) == 5
    assert cores_for(1001, 0.18) == 6
    assert cores_for(1, 0.001) == 1
