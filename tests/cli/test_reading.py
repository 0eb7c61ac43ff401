"""The reading commands against a running service (integration)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from asheard.commands.machine import to_json
from asheard.commands.show import clean, lines, turn_line
from asheard.v1.fact_pb2 import Fact, PositionCause, TimedWord, WordsTimed
from asheard.v1.transcript_pb2 import (
    CallEvent,
    DeadAirReason,
    Heard,
    Role,
    Silence,
    Transcript,
    Turn,
    Word,
    WordTimesSource,
)
from cli import main as cli
from tests.transcript.call_facts import START_S, ends, short_call, troubled_call
from tests.transcript.running_server import Client, running

Printed = pytest.CaptureFixture[str]


async def asheard(client: Client, command: str, *arguments: str) -> int:
    """Run a command against the service; its exit status."""
    target = f"127.0.0.1:{client.server.grpc.port}"
    return await asyncio.to_thread(cli.main, [command, "--target", target, *arguments])


async def test_get_for_people(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        facts = short_call("CA1", text="Hello there.")
        for fact in facts:
            if fact.HasField("position_fixed"):
                fact.position_fixed.cause = PositionCause.POSITION_CAUSE_CLEARED
                fact.position_fixed.position.best_ms = 400
                fact.position_fixed.position.low_ms = 400
                fact.position_fixed.position.high_ms = 400
        [last] = [fact for fact in facts if fact.HasField("session_ended")]
        words = [
            TimedWord(text_start=0, text_end=5, start_ms=0, end_ms=400),
            TimedWord(text_start=6, text_end=12, start_ms=400, end_ms=1000),
        ]
        times = WordsTimed(
            item_id="item_1",
            source=WordTimesSource(method="aligned", version="1", confidence=1, refined=True),
            audio_ms=1000,
            words=words,
        )
        timed = Fact(call_sid="CA1", writer=last.writer, sequence=last.sequence, words_timed=times)
        last.sequence += 1
        await client.append([*facts, timed])
        assert await asheard(client, "get", "CA1") == 0
    heading, turn = capsys.readouterr().out.splitlines()[-2:]
    assert heading == (
        "CA1  +15550100 → +15550199  2026-11-23 10:00:00Z  completed, final, revision 10"
    )
    assert turn.startswith("  0:00.2  agent   Hello")
    assert turn.endswith("[unheard: there.]  (0.4 of 1.0 s, interrupted)")


SILENCE = "  0:02.0  —       (5.0 s of silence: the model refused or failed)"

TROUBLED = [
    "  0:01.0  caller  Are you open?",
    SILENCE,
    "  0:07.0  agent   One moment, please.  (1.0 of 1.0 s, notice)",
    "  0:09.0  agent   [unheard: We are]  (1.0 of 1.0 s, incomplete: content_filter)",
    "  0:11.0  caller  (could not be transcribed)",
]


async def test_silences_notices_and_reasons_for_people(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        await client.append(troubled_call())
        capsys.readouterr()
        assert await asheard(client, "get", "CA1") == 0
        assert capsys.readouterr().out.splitlines()[1:] == TROUBLED
        assert await asheard(client, "watch", "CA1") == 0
        assert capsys.readouterr().out.splitlines()[:-1] == TROUBLED
        assert await asheard(client, "watch", "CA1", "--json") == 0
        transcript = json.loads(capsys.readouterr().out)
    assert transcript["events"] == [
        {
            "start_ms": 2000,
            "end_ms": 7000,
            "after_item_id": "question",
            "silence": {"reason": "DEAD_AIR_REASON_REFUSED", "lasted_ms": 5000},
        }
    ]
    told = [
        (turn["notice"], turn["incomplete_reason"], turn["transcription_failed"])
        for turn in transcript["turns"]
    ]
    assert told == [
        (False, "", False),
        (True, "", False),
        (False, "content_filter", False),
        (False, "", True),
    ]


async def test_a_watch_prints_a_silence_once_it_is_over(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        facts = troubled_call()
        told = next(i for i, fact in enumerate(facts) if fact.HasField("dead_air"))
        before = [fact for fact in facts[:told] if not ends(fact)]
        await client.append([fact for fact in before if "answer" not in str(fact)])
        capsys.readouterr()
        watching = asyncio.create_task(asheard(client, "watch", "CA1"))
        printed: list[str] = []
        async with asyncio.timeout(20):
            while TROUBLED[2] not in printed:
                await asyncio.sleep(0.02)
                printed += capsys.readouterr().out.splitlines()
            assert SILENCE not in printed
            await client.append([facts[told]])
            while SILENCE not in printed:
                await asyncio.sleep(0.02)
                printed += capsys.readouterr().out.splitlines()
            await client.append(facts)
            assert await watching == 0
        printed += capsys.readouterr().out.splitlines()
    assert sorted(printed[:-1]) == sorted(TROUBLED)


async def test_get_for_machines(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        await client.append(short_call("CA1", text="Hello there."))
        capsys.readouterr()
        assert await asheard(client, "get", "CA1", "--json") == 0
    transcript = json.loads(capsys.readouterr().out)
    assert transcript["call_sid"] == "CA1"
    assert transcript["state"] == "CALL_STATE_COMPLETED"
    assert transcript["final"] is True
    assert transcript["revision"] == 9
    assert transcript["start_time"] == "2026-11-23T10:00:00Z"
    turn = transcript["turns"][0]
    assert turn["heard_text"] == "Hello there."
    assert turn["heard_audio_ms"] == 1000
    assert turn["start_ms"] == 200
    assert turn["interrupted"] is False
    assert turn["words"][0]["heard"] == "HEARD_FULL"


async def test_watch_prints_each_turn_once_it_is_over(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        facts = short_call("CA1")
        await client.append(facts[:3])
        capsys.readouterr()
        watching = asyncio.create_task(asheard(client, "watch", "CA1"))
        await client.append(facts[3:])
        assert await asyncio.wait_for(watching, 20) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  0:00.2  agent   Hello there.  (1.0 of 1.0 s)"
    assert "completed, final" in lines[1]


async def test_watch_for_machines_is_one_state_a_line(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        await client.append(short_call("CA1"))
        capsys.readouterr()
        assert await asheard(client, "watch", "CA1", "--json") == 0
    states = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [state["revision"] for state in states] == [9]


async def test_calls(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        for n in range(3):
            await client.append(short_call(f"CA{n}", start_s=START_S + n, ended=n > 0))
        capsys.readouterr()
        assert await asheard(client, "calls", "--limit", "2") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[2] for line in lines[:2]] == ["CA2", "CA1"]
        assert "older" in lines[2]
        assert await asheard(client, "calls", "--json", "--state", "active") == 0
        assert [call["call_sid"] for call in json.loads(capsys.readouterr().out)["calls"]] == [
            "CA0"
        ]
        assert await asheard(client, "calls", "--after", "2026-11-23T10:00:02Z") == 0
        assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["CA2"]


async def test_check_heard(tmp_path: Path, capsys: Printed) -> None:
    async with running(tmp_path / "facts.db") as client:
        await client.append(short_call("CA1", text="That will be $9.05."))
        capsys.readouterr()
        assert await asheard(client, "check-heard", "CA1", "nine dollars and five cents") == 0
        assert capsys.readouterr().out == "heard, 100 % (in item_1)\n"
        assert await asheard(client, "check-heard", "CA1", "a refund", "--json") == 1
        answer = json.loads(capsys.readouterr().out)
        assert answer == {"result": "PASSAGE_RESULT_NOT_SAID", "turns": [], "share": 0.0}


async def test_what_goes_wrong_is_said_in_words(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASHEARD_API_TOKENS", raising=False)
    async with running(tmp_path / "facts.db", tokens=["secret"]) as client:
        await client.append(short_call("CA1"))
        assert await asheard(client, "get", "CA1") == 1
        assert "--token" in capsys.readouterr().err
        assert await asheard(client, "get", "CA404", "--token", "secret") == 1
        assert "no such call" in capsys.readouterr().err
        monkeypatch.setenv("ASHEARD_API_TOKENS", "secret,other")
        assert await asheard(client, "get", "CA1") == 0
    assert await asheard(client, "get", "CA1") == 1
    assert "no answer from the transcript service at 127.0.0.1:" in capsys.readouterr().err
    assert await asyncio.to_thread(cli.main, ["get", "CA1", "--target", "nonsense"]) == 2
    assert "ASHEARD_TRANSCRIPT_TARGET" in capsys.readouterr().err


def test_a_terminal_gets_unheard_words_struck_out() -> None:
    turn = Turn(
        role=Role.ROLE_AGENT,
        words=[
            Word(text="Cash", heard=Heard.HEARD_FULL),
            Word(text="or", heard=Heard.HEARD_PARTIAL, played_share=0.625),
            Word(text="credit?", heard=Heard.HEARD_NONE),
            Word(text="Now.", heard=Heard.HEARD_NONE),
        ],
    )
    assert "Cash \x1b[4mor\x1b[0m \x1b[9mcredit? Now.\x1b[0m" in turn_line(turn, terminal=True)
    assert "Cash [62 % heard: or] [unheard: credit? Now.]" in turn_line(turn, terminal=False)


def test_a_turn_that_is_partly_known_says_so() -> None:
    broken = Turn(role=Role.ROLE_CALLER, heard_text="I want", transcription_failed=True)
    assert "I want  (the rest could not be transcribed)" in turn_line(broken, terminal=False)
    empty = Turn(role=Role.ROLE_AGENT, incomplete_reason="x\x1b[2J")
    assert "(0.0 of 0.0 s, incomplete: x�[2J)" in turn_line(empty, terminal=False)


def test_silences_stand_where_they_began() -> None:
    def silence(after_item_id: str, lasted_ms: int) -> CallEvent:
        reason = DeadAirReason.DEAD_AIR_REASON_TOOL
        return CallEvent(
            after_item_id=after_item_id, silence=Silence(reason=reason, lasted_ms=lasted_ms)
        )

    newer = CallEvent(after_item_id="a")  # of a kind that this version does not know
    transcript = Transcript(
        turns=[Turn(item_id="a", role=Role.ROLE_CALLER), Turn(item_id="b", role=Role.ROLE_CALLER)],
        events=[
            silence("", 2000),
            silence("a", 3000),
            newer,
            silence("a", 3000),
            silence("b", 4000),
        ],
    )
    _, *shown = lines(transcript, terminal=False)
    assert [line[line.index("(") :].partition(" s of")[0] for line in shown] == [
        "(2.0",
        "(not transcribed)",
        "(3.0",
        "(3.0",
        "(not transcribed)",
        "(4.0",
    ]


def test_what_strangers_say_has_no_power_over_the_terminal() -> None:
    assert clean("a\x1b[2Jb\x07\u202ec") == "a�[2Jb��c"
    assert clean("👩‍💻 Grüße, 東京") == "👩‍💻 Grüße, 東京"
    turn = Turn(role=Role.ROLE_CALLER, heard_text="\x1b]0;title\x07")
    assert "\x1b" not in turn_line(turn, terminal=True)


def test_json_has_every_field_and_numbers_as_numbers() -> None:
    value = json.loads(to_json(Transcript(call_sid="CA1", turns=[Turn(start_ms=5)])))
    assert value["revision"] == 0
    assert value["final"] is False
    assert value["turns"][0]["start_ms"] == 5
    assert "end_ms" not in value["turns"][0]  # absent means something
