"""The plan of a reply: pieces, order and times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulators.realtime.generation import plan, tokens
from simulators.realtime.script import AgentScript, CallTool, Reply, Speak
from simulators.speech import corpus, spoken

TEXTS = st.sampled_from([s.text for s in corpus().values() if "agent" in s.name])
PARTS = st.lists(
    st.one_of(st.builds(Speak, TEXTS), st.just(CallTool("quote", '{"a": [1, 2]}'))),
    min_size=1,
    max_size=3,
)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_tokens_are_the_text_in_pieces(text: str) -> None:
    assert "".join(tokens(text)) == text


@given(PARTS, st.booleans(), st.sampled_from([0.5, 1.0, 3.5, 10.0]), st.booleans())
def test_plan_says_everything_once_in_order_and_never_goes_back_in_time(
    parts: list[Speak | CallTool], overlap: bool, speed: float, audio: bool
) -> None:
    reply = Reply(tuple(parts), overlap_items=overlap, speed=speed)
    steps = plan(reply, AgentScript(), audio=audio)
    times = [step.due_ms for step in steps]
    assert times == sorted(times)
    assert steps[-1].kind == "done"
    for index, part in enumerate(parts):
        own = [s for s in steps if s.part == index and s.kind != "done"]
        assert [own[0].kind, own[-1].kind] == ["open", "close"]
        said = "".join(s.text for s in own)
        sounded = [(s.start_byte, s.end_byte) for s in own if s.kind == "audio"]
        if isinstance(part, CallTool):
            assert said == part.arguments and not sounded
            continue
        assert said == part.text
        if not audio:
            assert not sounded
            continue
        size = len(spoken(part.text).ulaw)
        edges = [*range(0, size, 2_000), size]
        assert sounded == list(zip(edges, edges[1:], strict=False))
        leading = next(i for i, s in enumerate(own) if s.kind == "audio") - 1
        assert leading == len(tokens(part.text)) or 3 <= leading <= 6


def test_text_runs_ahead_of_audio_and_is_there_before_the_last_delta() -> None:
    long = corpus()["agent-disclosure-long"]
    steps = plan(Reply((Speak(long.text),)), AgentScript(), audio=True)
    kinds = "".join({"text": "t", "audio": "A"}.get(s.kind, "") for s in steps)
    assert kinds.lstrip("t").startswith("AAAtttAAtttAAAtttttt")
    assert kinds.endswith("AAAAAAAAAA")
