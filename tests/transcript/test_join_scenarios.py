"""Golden calls: facts in, the transcript as a person would read it out (unit).

A file of ``tests/scenarios/transcript`` begins with prose that says what it proves. After
``facts`` each line is a writer, the kind of fact, and its fields in protobuf's text format;
``skip WRITER`` leaves out a number. After ``transcript`` is what comes of it. Run with
ASHEARD_REWRITE_SCENARIOS=1 to write what the join says now, and explain the difference.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from google.protobuf import text_format

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import (
    CallEvent,
    CallState,
    DeadAirReason,
    Heard,
    Role,
    Transcript,
    Turn,
    Word,
)
from transcript.join import join

SCENARIOS = sorted(
    (Path(__file__).parent.parent / "scenarios" / "transcript").glob("*.txt"),
    key=lambda path: path.name,
)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    prose, _, rest = path.read_text("utf-8").partition("\nfacts\n")
    lines, _, expected = rest.partition("\ntranscript\n")
    facts = parse(lines)
    transcript = join(facts)
    if os.environ.get("ASHEARD_REWRITE_SCENARIOS"):
        path.write_text(f"{prose}\nfacts\n{lines}\ntranscript\n{render(transcript)}\n", "utf-8")
    assert render(transcript) == expected.strip("\n")


def test_a_silence_stands_after_a_turn_that_has_a_name() -> None:
    facts = parse(
        """
        session/1 caller_speech_started item_id: "a" at_ms: 100
        session/1 caller_speech_started at_ms: 200
        session/1 dead_air reason: DEAD_AIR_REASON_MODEL start_ms: 3000 lasted_ms: 2000
        """.replace("        ", "")
    )
    transcript = join(facts)
    assert [turn.item_id for turn in transcript.turns] == ["a", ""]
    assert [event.after_item_id for event in transcript.events] == ["a"]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_order_and_repeats_of_facts_change_nothing(path: Path) -> None:
    facts = parse(path.read_text("utf-8").partition("\nfacts\n")[2].partition("\ntranscript\n")[0])
    expected = join(facts)
    chance = random.Random(path.stem)
    for _ in range(20):
        shuffled = facts + chance.sample(facts, len(facts) // 2)
        chance.shuffle(shuffled)
        assert join(shuffled) == expected


def parse(lines: str) -> list[Fact]:
    """Facts of a scenario."""
    facts: list[Fact] = []
    written: dict[str, int] = {}
    for line in lines.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        writer, _, rest = line.partition(" ")
        if writer == "skip":
            written[rest] = written.get(rest, 0) + 1
            continue
        kind, _, fields = rest.strip().partition(" ")
        written[writer] = written.get(writer, 0) + 1
        fact = text_format.Parse(f"{kind} {{ {fields} }}", Fact())
        fact.call_sid, fact.writer, fact.sequence = "CA1", writer, written[writer]
        facts.append(fact)
    return facts


def render(transcript: Transcript) -> str:
    """A transcript for people: unheard words in brackets, partial ones with their share."""
    state = CallState.Name(transcript.state).removeprefix("CALL_STATE_").lower()
    final = "final" if transcript.final else "not final"
    lines = [f"{state}, {final}, revision {transcript.revision}"]
    if transcript.HasField("start_time") and transcript.HasField("end_time"):
        length_ms = transcript.end_time.ToMilliseconds() - transcript.start_time.ToMilliseconds()
        lines[0] += f", {length_ms / 1000:g} s"
    lines += _silence_lines(transcript, "")
    for turn in transcript.turns:
        lines += _turn_lines(turn)
        lines += _silence_lines(transcript, turn.item_id)
    return "\n".join(lines)


def _silence_lines(transcript: Transcript, after_item_id: str) -> list[str]:
    return [
        f"silence {_span(event)}, {event.silence.lasted_ms} ms, "
        + DeadAirReason.Name(event.silence.reason).removeprefix("DEAD_AIR_REASON_").lower()
        for event in transcript.events
        if event.after_item_id == after_item_id
    ]


def _span(timed: Turn | CallEvent) -> str:
    start = str(timed.start_ms) if timed.HasField("start_ms") else ""
    end = str(timed.end_ms) if timed.HasField("end_ms") else ""
    return f"{start}..{end}"


def _turn_lines(turn: Turn) -> list[str]:
    head = f"{Role.Name(turn.role).removeprefix('ROLE_').lower()} {turn.item_id} {_span(turn)}"
    if turn.role == Role.ROLE_TOOL:
        return [head, f"  {turn.generated_text}"]
    if turn.role == Role.ROLE_CALLER:
        head += ", transcription failed" if turn.transcription_failed else ""
        return [head, f"  {turn.heard_text!r}"]
    source = turn.word_times
    head += f", {turn.heard_audio_ms} of {turn.generated_audio_ms} ms"
    head += f", {source.method}" if source.method else ""
    head += " refined" if source.refined else ""
    head += ", interrupted" if turn.interrupted else ""
    head += ", notice" if turn.notice else ""
    head += f", incomplete: {turn.incomplete_reason}" if turn.incomplete_reason else ""
    return [head, f"  {' '.join(_word(word) for word in turn.words)}", f"  {turn.heard_text!r}"]


def _word(word: Word) -> str:
    doubt = "?" if word.uncertain else ""
    if word.heard == Heard.HEARD_FULL:
        return f"{word.text}{doubt}"
    if word.heard == Heard.HEARD_NONE:
        return f"[{word.text}{doubt}]"
    return f"<{word.text} {round(100 * word.played_share)}%{doubt}>"
