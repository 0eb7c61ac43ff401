"""What holds for the join of any facts whatever (unit, Hypothesis).

The facts need not make sense together: writers crash, clocks jump, items are mentioned by one side
only. The join must neither fail nor contradict itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from asheard.v1 import fact_pb2 as f
from asheard.v1.transcript_pb2 import (
    DeadAirReason,
    Heard,
    ItemPosition,
    PositionEvidence,
    PositionRule,
    Role,
    Transcript,
    Turn,
    WordTimesSource,
)
from tests.examples import examples
from tests.transcript.hostile_facts import hostile_facts
from transcript.join import KnownTurns, join

ITEMS = st.sampled_from(["a", "b", "c", "d"])
PART = st.sampled_from([0, 0, 0, 1])
MS = st.integers(-20, 4000)  # a writer with a bug must not make a call unreadable
AT = st.one_of(st.none(), MS)
TEXT = st.sampled_from(
    ["", "Hi.", "One two three.", " lead and trail ", "8,50 € – bitte 👋🏽!", "東京です"]
)


def _timed(text: str, cuts: Sequence[int]) -> list[f.TimedWord]:
    """Times for the words of a text, ascending but otherwise arbitrary."""
    words: list[f.TimedWord] = []
    place = 0
    bounds = sorted(cuts)
    for index, word in enumerate(text.split()):
        start = text.index(word, place)
        place = start + len(word)
        first, last = bounds[index % len(bounds)], bounds[(index + 1) % len(bounds)]
        words.append(
            f.TimedWord(
                text_start=start, text_end=place, start_ms=min(first, last), end_ms=max(first, last)
            )
        )
    return words


@st.composite
def _positions(draw: DrawFn) -> f.PositionFixed:
    low, best, high = sorted(draw(st.tuples(MS, MS, MS)))
    return f.PositionFixed(
        position=ItemPosition(
            item_id=draw(ITEMS), content_index=draw(PART), low_ms=low, best_ms=best, high_ms=high,
            evidence=PositionEvidence(
                rule=draw(st.sampled_from(PositionRule.values())), stopped_at_ms=draw(AT)
            ),
            sent_ms=draw(MS),
        ),
        cause=draw(st.sampled_from(f.PositionCause.values())),
        at_ms=draw(AT),
    )  # fmt: skip


@st.composite
def _words_timed(draw: DrawFn) -> f.WordsTimed:
    return f.WordsTimed(
        item_id=draw(ITEMS),
        content_index=draw(PART),
        audio_ms=draw(MS),
        source=WordTimesSource(method="aligned", refined=draw(st.booleans())),
        words=_timed(draw(TEXT), draw(st.lists(MS, min_size=2, max_size=5))),
    )


GATEWAY_BODIES: SearchStrategy[dict[str, object]] = st.one_of(
    st.builds(lambda s: {"session_assigned": f.SessionAssigned(session_writer=s)},
              st.sampled_from(["session/1", "session/2"])),
    st.builds(lambda s: {"session_lost": f.SessionLost(session_writer=s)},
              st.sampled_from(["session/1", "session/2"])),
    st.builds(lambda i, p, at: {"playback_started": f.PlaybackStarted(
        item_id=i, content_index=p, at_ms=at)}, ITEMS, PART, MS),
    st.builds(lambda i, p, played, sent: {"playback_progressed": f.PlaybackProgressed(
        item_id=i, content_index=p, played_ms=played, sent_ms=sent)}, ITEMS, PART, MS, MS),
    st.builds(lambda position: {"position_fixed": position}, _positions()),
    st.builds(lambda o: {"call_ended": f.CallEnded(outcome=o)},
              st.sampled_from(f.CallOutcome.values())),
)  # fmt: skip

SESSION_BODIES: SearchStrategy[dict[str, object]] = st.one_of(
    st.builds(lambda i, r, n: {"item_added": f.ItemAdded(item_id=i, role=r, notice=n)},
              ITEMS, st.sampled_from(Role.values()), st.booleans()),
    st.builds(lambda i, p, o, t, a: {"item_progressed": f.ItemProgressed(
        item_id=i, content_index=p, text_offset=o, text=t, audio_ms=a)},
        ITEMS, PART, st.integers(0, 20), TEXT, MS),
    st.builds(lambda i, p, t, a, s, r: {"item_generated": f.ItemGenerated(
        item_id=i, content_index=p, text=t, audio_ms=a, status=s, reason=r)},
        ITEMS, PART, TEXT, MS, st.sampled_from(f.GenerationStatus.values()),
        st.sampled_from(["", "content_filter", "overloaded"])),
    st.builds(lambda words: {"words_timed": words}, _words_timed()),
    st.builds(lambda i, at: {"caller_speech_started": f.CallerSpeechStarted(
        item_id=i, at_ms=at)}, ITEMS, AT),
    st.builds(lambda i, at: {"caller_speech_stopped": f.CallerSpeechStopped(
        item_id=i, at_ms=at)}, ITEMS, AT),
    st.builds(lambda i, t, c: {"caller_transcribed": f.CallerTranscribed(
        item_id=i, text=t, complete=c)}, ITEMS, TEXT, st.booleans()),
    st.builds(lambda i: {"caller_transcribed": f.CallerTranscribed(
        item_id=i, complete=True, nobody_spoke=True)}, ITEMS),
    st.builds(lambda i, t: {"caller_transcribed": f.CallerTranscribed(
        item_id=i, text=t, complete=True, failed=True)}, ITEMS, TEXT),
    st.builds(lambda r, start, end, ms: {"dead_air": f.DeadAir(
        reason=r, start_ms=start, end_ms=end, lasted_ms=ms)},
        st.sampled_from(DeadAirReason.values()), AT, AT, MS),
    st.builds(lambda i: {"tool_called": f.ToolCalled(item_id=i, name="n", arguments="{}")}, ITEMS),
    st.just({"session_ended": f.SessionEnded()}),
)  # fmt: skip


@st.composite
def logs(draw: DrawFn) -> list[f.Fact]:
    """Facts of up to two streams and two sessions of one call, in order and complete."""
    facts: list[f.Fact] = []
    for writer, bodies in (
        ("gateway/MZ1", GATEWAY_BODIES),
        ("gateway/MZ2", GATEWAY_BODIES),
        ("session/1", SESSION_BODIES),
        ("session/2", SESSION_BODIES),
    ):
        written = draw(st.lists(bodies, max_size=10))
        if writer.startswith("gateway") and written:
            started = f.CallStarted(stream_sid=writer)
            if draw(st.booleans()):
                started.start_time.FromSeconds(draw(st.integers(0, 3)))
            written.insert(0, {"call_started": started})
        for sequence, body in enumerate(written, start=1):
            facts.append(f.Fact(call_sid="CA1", writer=writer, sequence=sequence, **body))  # type: ignore[arg-type]
    return facts


some_logs = logs().filter(bool)


@given(some_logs, st.randoms(use_true_random=False))
@settings(max_examples=examples(100), deadline=None)
def test_order_and_repeats_change_nothing(facts: list[f.Fact], chance: Random) -> None:
    expected = join(facts)
    shuffled = facts + chance.sample(facts, chance.randint(0, len(facts)))
    chance.shuffle(shuffled)
    assert join(shuffled) == expected


@given(some_logs)
@settings(max_examples=examples(100), deadline=None)
def test_a_turn_does_not_contradict_itself(facts: list[f.Fact]) -> None:
    for turn in join(facts).turns:
        check_turn(turn)


def check_turn(turn: Turn) -> None:
    """Its text, its words and its figures agree."""
    assert 0 <= turn.heard_audio_ms <= turn.generated_audio_ms
    if turn.role != Role.ROLE_AGENT:
        assert not turn.words
        return
    assert turn.generated_text or turn.generated_audio_ms or turn.incomplete_reason
    everything = "".join(word.text for word in turn.words)
    assert everything == "".join(turn.generated_text.split())
    counted = [
        word.heard == Heard.HEARD_FULL
        or (word.heard == Heard.HEARD_PARTIAL and word.played_share >= 0.5)
        for word in turn.words
    ]
    heard = "".join(word.text for word, counts in zip(turn.words, counted, strict=True) if counts)
    assert heard == "".join(turn.heard_text.split())
    for word in turn.words:
        assert word.start_ms <= word.end_ms
        assert 0.0 <= word.played_share <= 1.0
        if word.heard == Heard.HEARD_PARTIAL:
            assert 0.0 < word.played_share < 1.0
        if word.start_ms == word.end_ms == turn.generated_audio_ms > 0:
            assert word.heard == Heard.HEARD_NONE or turn.heard_text.endswith(word.text)
    if not turn.heard_audio_ms:
        assert not turn.heard_text


@given(some_logs)
@settings(max_examples=examples(100), deadline=None)
def test_each_silence_is_an_event_in_its_place(facts: list[f.Fact]) -> None:
    transcript = join(facts)
    told = [fact.dead_air for fact in facts if fact.HasField("dead_air")]
    assert len(transcript.events) == len(told)
    place = {turn.item_id: index for index, turn in enumerate(transcript.turns)} | {"": -1}
    places = [place[event.after_item_id] for event in transcript.events]
    assert places == sorted(places)
    for event in transcript.events:
        assert event.silence.lasted_ms >= 0
        if event.HasField("start_ms") and event.HasField("end_ms"):
            assert event.end_ms >= event.start_ms
    if not any(fact.writer == "gateway/MZ2" for fact in facts):  # one stream, one clock
        starts = [event.start_ms for event in transcript.events if event.HasField("start_ms")]
        assert starts == sorted(starts)
        for event, at in zip(transcript.events, places, strict=True):
            if event.HasField("start_ms"):
                begun = [t.start_ms for t in transcript.turns[: at + 1] if t.HasField("start_ms")]
                later = [t.start_ms for t in transcript.turns[at + 1 :] if t.HasField("start_ms")]
                assert max(begun, default=-20) <= event.start_ms <= min(later, default=4000)


@given(some_logs)
@settings(max_examples=examples(50), deadline=None)
def test_silences_move_no_turn(facts: list[f.Fact]) -> None:
    quiet = [f.Fact.FromString(fact.SerializeToString()) for fact in facts]
    for fact in quiet:
        if fact.HasField("dead_air"):
            fact.ClearField("dead_air")
    assert join(quiet).turns == join(facts).turns


@given(some_logs)
@settings(max_examples=examples(100), deadline=None)
def test_what_has_a_word_is_a_turn_of_the_callers(facts: list[f.Fact]) -> None:
    turns = {turn.item_id: turn for turn in join(facts).turns if turn.role == Role.ROLE_CALLER}
    said = [fact.caller_transcribed for fact in facts if fact.HasField("caller_transcribed")]
    for turn in turns.values():
        of_it = [one for one in said if one.item_id == turn.item_id]
        spoken = [one for one in of_it if one.text.strip()]
        by_nobody = [one for one in of_it if one.nobody_spoke]
        if by_nobody:
            assert spoken or any(one.failed for one in of_it)
        if by_nobody and spoken and all(one in (*spoken, *by_nobody) for one in of_it):
            assert turn.heard_text.strip()
        if turn.transcription_failed:
            assert any(one.failed for one in of_it)


@given(st.randoms(use_true_random=False), st.integers(1, 60))
@settings(max_examples=examples(100), deadline=None)
def test_whatever_was_stored_joins(chance: Random, count: int) -> None:
    facts = hostile_facts(chance, count)
    transcript = join(facts)
    for turn in transcript.turns:
        check_turn(turn)
    shuffled = facts + facts[::3]
    chance.shuffle(shuffled)
    assert same(join(shuffled), transcript)
    Transcript.FromString(transcript.SerializeToString())
    MessageToJson(transcript)  # times that can be shown


def same(one: Transcript, other: Transcript) -> bool:
    """Equal, also where a number is not one."""
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


@given(some_logs)
@settings(max_examples=examples(50), deadline=None)
def test_every_prefix_of_a_log_is_valid_and_grows(facts: list[f.Fact]) -> None:
    for length in range(1, len(facts) + 1):
        assert join(facts[:length]).revision == length


@given(st.randoms(use_true_random=False), st.integers(1, 40))
@settings(max_examples=examples(100), deadline=None)
def test_what_was_joined_before_changes_no_answer(chance: Random, count: int) -> None:
    facts = hostile_facts(chance, count)
    chance.shuffle(facts)
    known = KnownTurns()
    for length in range(1, count + 1, chance.randint(1, 5)):
        assert same(join(facts[:length], known), join(facts[:length]))


@given(some_logs)
@settings(max_examples=examples(50), deadline=None)
def test_facts_are_left_as_they_were(facts: list[f.Fact]) -> None:
    before = [fact.SerializeToString(deterministic=True) for fact in facts]
    join(facts)
    assert [fact.SerializeToString(deterministic=True) for fact in facts] == before


@given(some_logs)
@settings(max_examples=examples(50), deadline=None)
def test_only_a_closed_log_is_final(facts: list[f.Fact]) -> None:
    if join(facts).final:
        assert any(fact.HasField("call_ended") for fact in facts)
        # Whatever is taken away of a gateway's facts up to its end leaves a hole.
        end = next(i for i, fact in enumerate(facts) if fact.HasField("call_ended"))
        for hole in range(end):
            if facts[hole].writer == facts[end].writer:
                assert not join(facts[:hole] + facts[hole + 1 :]).final


def test_a_call_without_any_gateway_s_facts_is_not_final() -> None:
    fact = f.Fact(call_sid="CA1", writer="session/1", sequence=1, session_ended=f.SessionEnded())
    assert not join([fact]).final


def test_no_facts_are_no_call() -> None:
    with pytest.raises(ValueError, match="one call"):
        join([])


def test_facts_of_two_calls_do_not_join() -> None:
    facts = [f.Fact(call_sid=sid, writer="gateway/MZ1", sequence=1) for sid in ("CA1", "CA2")]
    with pytest.raises(ValueError, match="one call"):
        join(facts)


def test_two_bodies_under_one_number_join_the_same_in_any_order() -> None:
    facts = [
        f.Fact(call_sid="CA1", writer="session/1", sequence=1,
               caller_transcribed=f.CallerTranscribed(item_id="a", text=text, complete=True))
        for text in ("one", "two")
    ]  # fmt: skip
    assert join(facts) == join(facts[::-1])
    assert join(facts).revision == 1
