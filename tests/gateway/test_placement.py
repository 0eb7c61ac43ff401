"""The least loaded worker first, those with too much to do last, full and draining ones never."""

from __future__ import annotations

import pytest

from gateway.placement import WorkerLoad, by_preference


@pytest.mark.parametrize(
    ("loads", "tried", "expected"),
    [
        ({}, "", ""),
        ({"a": WorkerLoad(5, 10), "b": WorkerLoad(6, 20)}, "", "ba"),
        ({"a": WorkerLoad(1, 10), "b": WorkerLoad(1, 10)}, "", "ab"),
        ({"a": WorkerLoad(1, 10, given_since=2), "b": WorkerLoad(2, 10)}, "", "ba"),
        ({"a": WorkerLoad(10, 10), "b": WorkerLoad(9, 10, given_since=1)}, "", ""),
        ({"a": WorkerLoad(0, 10, draining=True), "b": WorkerLoad(9, 10)}, "", "b"),
        ({"a": WorkerLoad(0, 10, 80_000), "b": WorkerLoad(9, 10, 20_000)}, "", "ba"),
        ({"a": WorkerLoad(0, 10), "b": WorkerLoad(9, 10)}, "a", "b"),
        ({"a": WorkerLoad(0, 10)}, "a", ""),
    ],
)
def test_preference(loads: dict[str, WorkerLoad], tried: str, expected: str) -> None:
    assert "".join(by_preference(loads, tried=tried)) == expected
