"""When a call is over, and what it waits for until then (unit)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from asheard.v1 import fact_pb2 as f
from asheard.v1.transcript_pb2 import CallState, ItemPosition, Role, Transcript
from tests.examples import examples
from tests.transcript.call_facts import START_S, Writer
from transcript.join import join
from transcript.join.lifecycle import Outstanding, outstanding
from transcript.join.log import call_log

COMPLETED = f.CallOutcome.CALL_OUTCOME_COMPLETED
DROPPED = f.CallOutcome.CALL_OUTCOME_DROPPED
ACTIVE = CallState.CALL_STATE_ACTIVE
FAILED = CallState.CALL_STATE_FAILED


def lost(writer: str) -> f.Fact:
    """What the transcript service says of a writer whose process is gone."""
    return Writer("CA1", f"transcript/lost/{writer}").write(writer_lost=f.WriterLost(writer=writer))


def closed() -> f.Fact:
    """What the transcript service says when no new stream came."""
    return Writer("CA1", "transcript/closed").write(call_closed=f.CallClosed())


def stream(
    number: int = 1,
    *,
    outcome: f.CallOutcome.ValueType | None = None,
    start_s: int | None = START_S,
    numbered: bool = True,
) -> list[f.Fact]:
    """A stream with one session, which begins to play an item."""
    gateway = Writer("CA1", f"gateway/MZ{number}")
    started = f.CallStarted(stream_sid=f"MZ{number}", stream_number=number if numbered else 0)
    if start_s is not None:
        started.start_time.FromSeconds(start_s)
    gateway.write(call_started=started)
    gateway.write(session_assigned=f.SessionAssigned(session_writer=f"session/{number}"))
    item = f"item_{number}"
    gateway.write(playback_started=f.PlaybackStarted(item_id=item, at_ms=100))
    gateway.write(
        playback_progressed=f.PlaybackProgressed(
            item_id=item, played_ms=400, sent_ms=900, at_ms=500
        )
    )
    if outcome is not None:
        gateway.write(
            position_fixed=f.PositionFixed(
                position=ItemPosition(
                    item_id=item, low_ms=400, best_ms=500, high_ms=600, sent_ms=900
                ),
                cause=f.PositionCause.POSITION_CAUSE_DROPPED,
                at_ms=600,
            )
        )
        ended = f.CallEnded(outcome=outcome, at_ms=2000)
        if start_s is not None:
            ended.end_time.FromSeconds(start_s + 2)
        gateway.write(call_ended=ended)
    return gateway.facts


def session(number: int = 1, *, ended: bool = True) -> list[f.Fact]:
    """The session of a stream."""
    worker = Writer("CA1", f"session/{number}")
    worker.write(session_started=f.SessionStarted())
    worker.write(item_added=f.ItemAdded(item_id=f"item_{number}", role=Role.ROLE_AGENT))
    worker.write(
        item_generated=f.ItemGenerated(
            item_id=f"item_{number}",
            text="One two three four.",
            audio_ms=900,
            status=f.GenerationStatus.GENERATION_STATUS_COMPLETED,
        )
    )
    if ended:
        worker.write(session_ended=f.SessionEnded())
    return worker.facts


def waits(facts: list[f.Fact]) -> Outstanding:
    """What these facts wait for; says the same as the transcript's ``final``."""
    result = outstanding(call_log(facts))
    assert result.nothing == join(facts).final
    return result


def test_a_hung_up_call_waits_for_its_writers_only() -> None:
    gateway, worker = stream(outcome=COMPLETED), session()
    assert waits(gateway[:-1]).open_writers == ("gateway/MZ1", "session/1")
    assert waits(gateway).open_writers == ("session/1",)
    assert waits(gateway + worker[:-1]).open_writers == ("session/1",)
    assert waits(gateway + worker).nothing


def test_after_any_other_end_a_call_waits_for_a_new_stream() -> None:
    for outcome in set(f.CallOutcome.values()) - {COMPLETED}:
        facts = stream(outcome=outcome) + session()
        waiting = waits(facts)
        assert (waiting.open_writers, waiting.awaits_close) == ((), True)
        assert waits([*facts, closed()]).nothing
        again = [*facts, *stream(2)]
        assert waits(again).open_writers == ("gateway/MZ2", "session/2")
        again = [*facts, *stream(2, outcome=COMPLETED), *session(2)]
        assert waits(again).nothing


def test_a_writer_of_a_dead_process_is_not_waited_for() -> None:
    facts = [*stream(), *session(ended=False)]
    facts += [lost("gateway/MZ1"), lost("session/1")]
    assert waits(facts).awaits_close
    transcript = join([*facts, closed()])
    assert (transcript.state, transcript.final) == (FAILED, True)
    # What was playing is heard as far as proven, and the call's end is the last timestamp it told.
    (turn,) = transcript.turns
    assert (turn.position.low_ms, turn.position.best_ms, turn.position.high_ms) == (400, 400, 900)
    assert (turn.heard_audio_ms, turn.end_ms) == (400, 500)
    assert transcript.end_time.ToMilliseconds() == START_S * 1000 + 500


def test_a_killed_session_that_never_wrote_is_known_as_open() -> None:
    assert waits(stream(outcome=DROPPED)).open_writers == ("session/1",)
    assert waits([*stream(outcome=DROPPED), lost("session/1")]).awaits_close


def test_sessions_without_a_stream_wait_for_one() -> None:
    facts = session()
    waiting = waits(facts)
    assert waiting.awaits_stream
    assert waiting.awaits_close
    assert join(facts).state == ACTIVE
    assert join([*facts, closed()]).state == FAILED
    assert waits([*facts, closed()]).nothing


def test_what_a_complete_writer_said_stands_when_it_is_called_lost() -> None:
    facts = stream(outcome=COMPLETED) + session()
    before, after = join(facts), join([*facts, lost("gateway/MZ1"), lost("session/1"), closed()])
    after.revision = before.revision
    assert after == before


def test_only_the_transcript_service_can_say_that_a_writer_is_lost() -> None:
    facts = stream(outcome=DROPPED) + session(ended=False)
    false = Writer("CA1", "session/9")
    false.write(writer_lost=f.WriterLost(writer="session/1"))
    false.write(call_closed=f.CallClosed())
    false.write(session_ended=f.SessionEnded())
    assert waits(facts + false.facts).open_writers == ("session/1",)


def test_a_dropped_fact_keeps_its_writer_whole() -> None:
    gateway = stream(outcome=COMPLETED)
    for place in range(1, len(gateway)):
        holed = [*gateway, *session()]
        kind = gateway[place].WhichOneof("body")
        assert kind is not None
        holed[place] = f.Fact(
            call_sid="CA1",
            writer="gateway/MZ1",
            sequence=place + 1,
            fact_dropped=f.FactDropped(body=kind, bytes=9_000_000, reason="too large"),
        )
        if kind == "call_ended":  # it is closed, and nobody knows how
            assert waits(holed).awaits_close
            assert join(holed).state == FAILED
        else:
            assert waits(holed).nothing


def test_an_item_whose_position_was_given_up_counts_as_proven() -> None:
    facts = stream(outcome=COMPLETED) + session()
    facts[4] = f.Fact(
        call_sid="CA1", writer="gateway/MZ1", sequence=5, fact_dropped=f.FactDropped()
    )
    (turn,) = join(facts).turns
    assert (turn.position.low_ms, turn.position.best_ms, turn.position.high_ms) == (400, 400, 900)


def test_writers_of_a_kind_that_is_not_known_change_nothing() -> None:
    facts = stream(outcome=COMPLETED) + session()
    odd = [
        Writer("CA1", name).write(session_ended=f.SessionEnded())
        for name in ("", "gateway", "webhook/1", "transcript/new", "session")
    ]
    before, after = join(facts), join(facts + odd)
    assert after.revision == before.revision + len(odd)
    after.revision = before.revision
    assert after == before


@pytest.mark.parametrize(
    ("streams", "order"),
    [
        # Numbers win over clocks.
        ([stream(1, start_s=500), stream(2, start_s=100)], [1, 2]),
        # The same number: by clock. No number: before the first numbered one that began later.
        ([stream(7, start_s=50, numbered=False), stream(1, start_s=10), stream(2, start_s=90)],
         [1, 7, 2]),
        ([stream(7, start_s=5, numbered=False), stream(8, start_s=95, numbered=False),
          stream(1, start_s=10), stream(2, start_s=90)], [7, 1, 2, 8]),
        # Neither number nor clock: last.
        ([stream(7, start_s=None, numbered=False), stream(2, start_s=None),
          stream(1, start_s=90)], [1, 2, 7]),
        # Nobody has a number, as of old.
        ([stream(1, start_s=9, numbered=False), stream(2, start_s=8, numbered=False)], [2, 1]),
    ],
)  # fmt: skip
def test_the_order_of_streams(streams: list[list[f.Fact]], order: list[int]) -> None:
    facts = [fact for stream in streams for fact in stream]
    for arrival in (facts, facts[::-1]):
        assert list(call_log(arrival).streams) == [f"gateway/MZ{number}" for number in order]


def test_a_call_never_ends_before_it_began() -> None:
    facts = [
        *stream(1, outcome=DROPPED, start_s=START_S),
        *stream(2, outcome=COMPLETED, start_s=START_S - 3600),
    ]
    transcript = join(facts)
    assert transcript.start_time.seconds == START_S
    assert transcript.end_time.seconds == START_S + 2


@st.composite
def calls(draw: DrawFn) -> list[list[f.Fact]]:
    """The facts of up to three streams and their sessions, a list for each writer."""
    count = draw(st.integers(1, 3))
    logs: list[list[f.Fact]] = []
    for number in range(1, count + 1):
        outcome = draw(st.sampled_from([*f.CallOutcome.values(), None]))
        start_s = draw(st.one_of(st.none(), st.integers(START_S - 3600, START_S + 3600)))
        logs.append(stream(number, outcome=outcome, start_s=start_s, numbered=draw(st.booleans())))
        logs.append(session(number, ended=draw(st.booleans())))
    return logs


sweeps: st.SearchStrategy[Callable[[list[f.Fact]], list[f.Fact]]] = st.sampled_from(
    [
        lambda facts: [lost(writer) for writer in outstanding(call_log(facts)).open_writers],
        lambda facts: [closed()] if outstanding(call_log(facts)).awaits_close else [],
    ]
)


def _without_revision(transcript: Transcript) -> Transcript:
    copy = Transcript()
    copy.CopyFrom(transcript)
    copy.revision = 0
    return copy


@given(calls(), st.data())
@settings(max_examples=examples(100), deadline=None)
def test_final_is_said_once_whatever_the_order_and_whoever_sweeps(
    logs: list[list[f.Fact]], data: st.DataObject
) -> None:
    """Facts come in any order, the sweeper looks in between, and the store refuses every fact of a
    call that is final: from then on the transcript is what it was, at every reader's."""
    todo = [fact for facts in logs for fact in facts]
    data.draw(st.randoms(use_true_random=False)).shuffle(todo)
    stored: list[f.Fact] = []
    while todo:
        count = data.draw(st.integers(1, len(todo)))
        stored, todo = stored + todo[:count], todo[count:]
        stored += data.draw(sweeps)(stored)
        transcript = join(stored)
        shuffled = stored + stored[: len(stored) // 2]
        Random(count).shuffle(shuffled)
        assert join(shuffled) == transcript
        if transcript.HasField("start_time") and transcript.HasField("end_time"):
            assert transcript.end_time.ToNanoseconds() >= transcript.start_time.ToNanoseconds()
        if transcript.final:
            # Another replica's sweeper may say again what it saw before: nothing changes.
            writers = {fact.writer for fact in stored if not fact.writer.startswith("transcript")}
            again = join(stored + [lost(writer) for writer in writers] + [closed()])
            assert _without_revision(again) == _without_revision(transcript)
            return
    # All that the writers had to say is there: two sweeps end any call.
    stored += [lost(writer) for writer in outstanding(call_log(stored)).open_writers]
    if outstanding(call_log(stored)).awaits_close:
        stored.append(closed())
    assert join(stored).final
