"""Faults drawn at random: by seed, session and what they befall, and by nothing else."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from simulators.realtime.faults import RandomFaults, RequestFault
from simulators.realtime.mishaps import SPEECHLESS, Mishaps
from simulators.realtime.script import AgentScript, say
from simulators.realtime.session_truth import SessionTruth
from tests.simulators.realtime.drive import CREATE, Drive, every, kinds

MANY = 400


def mishaps(faults: RandomFaults, number: int = 0) -> Mishaps:
    return Mishaps(AgentScript(faults=faults), SessionTruth("sess_1"), number)


def test_draws_come_about_as_often_as_they_should() -> None:
    drawn = mishaps(
        RandomFaults(seed=7, refuse=0.2, unanswered=0.1, no_response=0.3, overtaken=0.5)
    )
    answers = Counter(
        "fine" if fault is None else fault.answer
        for fault in (drawn.of_request(0) for _ in range(MANY))
    )
    assert answers["error"] == pytest.approx(0.2 * MANY, rel=0.3)
    assert answers["none"] == pytest.approx(0.1 * MANY, rel=0.4)
    turns = [drawn.of_turn("yes") for _ in range(MANY)]
    assert sum(t is not None for t in turns) == pytest.approx(0.3 * MANY, rel=0.3)
    results = [drawn.of_result() for _ in range(MANY)]
    assert sum(r is not None for r in results) == pytest.approx(0.5 * MANY, rel=0.3)


def test_refusals_are_of_every_kind() -> None:
    drawn = mishaps(RandomFaults(refuse=1.0))
    kinds = {
        (fault.code, fault.names_request)
        for fault in (drawn.of_request(0) for _ in range(MANY))
        if fault is not None
    }
    assert kinds == {
        (code, named) for code in ("server_error", "rate_limit_exceeded") for named in (True, False)
    }


SHARES = [f.name for f in dataclasses.fields(RandomFaults) if f.type == "float"]


@pytest.mark.parametrize("name", sorted(SPEECHLESS))
def test_reply_that_was_not_spoken_is_given_again(name: str) -> None:
    share: dict[str, Any] = {name: 1.0}
    faults = RandomFaults(**share)
    drive = Drive(AgentScript(replies=(say("Yes, of course."), say("Goodbye.")), faults=faults))
    for _ in range(2):
        drive.send(CREATE)
        drive.wait(5_000)
    assert [f.what for f in drive.truth.faults][:2] == [name, name]
    assert all(item.planned_text == "Yes, of course." for item in drive.truth.agent_items)


@pytest.mark.parametrize("name", ["missing_created", "missing_done", "odd_done", "slow_start"])
def test_reply_that_was_spoken_is_not(name: str) -> None:
    share: dict[str, Any] = {name: 1.0}
    faults = RandomFaults(**share)
    drive = Drive(AgentScript(replies=(say("Yes, of course."), say("Goodbye.")), faults=faults))
    for _ in range(2):
        drive.send(CREATE)
        drive.wait(8_000)
    texts = [item.planned_text for item in drive.truth.agent_items]
    assert texts == ["Yes, of course.", "Goodbye."]
    lost = {"missing_created": "response.created", "missing_done": "response.done"}
    assert lost.get(name) not in kinds(drive.events)


def test_slow_start_is_a_silence_before_the_audio() -> None:
    faults = RandomFaults(slow_start=1.0, slow_start_ms=5_000)
    drive = Drive(AgentScript(replies=(say("Yes, of course."),), faults=faults))
    drive.send(CREATE)
    assert not every(drive.wait(5_000), "response.output_audio.delta")
    assert every(drive.wait(2_000), "response.output_audio.delta")


def test_every_share_is_drawn() -> None:
    tested = {*SPEECHLESS, "missing_created", "missing_done", "odd_done", "slow_start"}
    assert tested | {"refuse", "unanswered", "no_response", "overtaken"} == set(SHARES)


def test_draws_depend_on_the_session_and_on_what_they_befall_alone() -> None:
    faults = RandomFaults(seed=3, refuse=0.5, no_response=0.5)
    plain, busy, other = mishaps(faults), mishaps(faults), mishaps(faults, number=1)
    requests, of_busy = [], []
    for _ in range(40):
        requests.append(plain.of_request(0))
        busy.of_turn("yes")
        busy.of_result()
        of_busy.append(busy.of_request(99))
    assert requests == of_busy
    assert requests != [other.of_request(0) for _ in range(40)]


def test_what_the_script_gives_by_number_goes_first() -> None:
    script = AgentScript(
        refusals=(RequestFault(1, code="insufficient_quota"),), faults=RandomFaults(unanswered=1.0)
    )
    drawn = Mishaps(script, SessionTruth("sess_1"), 0)
    first, second = drawn.of_request(0), drawn.of_request(0)
    assert first is not None and first.code == "insufficient_quota"
    assert second is not None and second.answer == "none"
