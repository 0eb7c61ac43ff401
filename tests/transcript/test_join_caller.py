"""The caller's words from the worker that writes them to the transcript that shows them (unit).

Whatever transcription does, a word that was once shown is never taken back, and an item in which
nobody spoke is no turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from asheard.v1.fact_pb2 import CallerSpeechStarted, CallerTranscribed, Fact
from session.realtime.caller import CallerTranscripts
from session.realtime.outputs import WriteFact
from tests.examples import examples
from tests.transcript.call_facts import Writer
from transcript.join import join

ITEMS = ("a", "b")
TEXT = st.sampled_from(["", " ", "Hm", "A bagel.", " two "])
STEPS = st.lists(
    st.tuples(st.sampled_from(["expect", "delta", "completed", "failed"]), st.sampled_from(ITEMS), TEXT),
    max_size=12,
)  # fmt: skip
HEARD = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["began", "stopped", "left"]), st.sampled_from(ITEMS), st.just("")
        ),
        st.tuples(st.sampled_from(["expect", "delta", "completed"]), st.sampled_from(ITEMS), TEXT),
    ),
    max_size=16,
)
"""With what voice detection makes of it."""
Step = tuple[str, str, str]


def written(steps: list[Step]) -> list[Fact]:
    """What a worker writes of two items in which voice detection heard something."""
    session = Writer("CA1", "session/1")
    for at_ms, item_id in enumerate(ITEMS):
        session.write(caller_speech_started=CallerSpeechStarted(item_id=item_id, at_ms=at_ms))
    transcripts = CallerTranscripts(enabled=True)
    for now, (event, item_id, text) in enumerate(steps):
        match event:
            case "began":
                outputs = transcripts.began(item_id)
            case "stopped":
                transcripts.stopped(item_id, now=now)
                continue
            case "left":
                outputs = transcripts.left(now=now)
            case "expect":
                outputs = transcripts.expect(item_id)
            case "delta":
                outputs = transcripts.delta(item_id, text, now=now)
            case "completed":
                outputs = transcripts.completed(item_id, text)
            case _:
                outputs = transcripts.failed(item_id)
        write(session, outputs)
    write(session, transcripts.finish())
    return session.facts


def write(session: Writer, outputs: Sequence[object]) -> None:
    for output in outputs:
        if isinstance(output, WriteFact):
            assert isinstance(output.body, CallerTranscribed)
            session.write(caller_transcribed=output.body)


@given(st.one_of(STEPS, HEARD), st.randoms(use_true_random=False))
@settings(max_examples=examples(300), deadline=None)
def test_a_word_that_was_shown_is_never_taken_back(steps: list[Step], chance: Random) -> None:
    facts = written(steps)
    if chance.random() < 0.5:
        chance.shuffle(facts)
    shown: set[str] = set()
    for length in range(1, len(facts) + 1):
        with_words = {t.item_id for t in join(facts[:length]).turns if t.heard_text.strip()}
        assert shown <= with_words
        shown = with_words


@given(STEPS)
@settings(max_examples=examples(300), deadline=None)
def test_only_what_transcription_found_empty_is_no_turn(steps: list[Step]) -> None:
    turns = {turn.item_id: turn for turn in join(written(steps)).turns}
    for item_id in ITEMS:
        told = [(event, text) for event, item, text in steps if item == item_id]
        if all(event == "completed" and not text.strip() for event, text in told) and told:
            assert item_id not in turns
        if item_id not in turns:
            assert any(event == "completed" for event, _ in told)
            assert not any(event == "delta" and text.strip() for event, text in told)
