"""Was this passage heard? (pure): between a transcript and :mod:`words.passage`."""

from __future__ import annotations

from collections.abc import Iterable

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import Heard, Role, Transcript, Turn, Word
from asheard.v1.transcript_service_pb2 import CheckHeardResponse, PassageResult
from runtime.errors import InvalidRequest
from words import heard, passage

MAX_CHARACTERS = 2_000
"""A disclosure takes some hundred; beyond this it is a page, which is asked for in sentences."""

_FATES = {
    Heard.HEARD_FULL: heard.Heard.FULL,
    Heard.HEARD_PARTIAL: heard.Heard.PARTIAL,
}


def check_passage(text: str) -> None:
    """Refuse what cannot be looked for.

    Raises:
        InvalidRequest: The passage is too long.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"passage: at most {MAX_CHARACTERS} characters; ask for sentences")


def check_heard(transcript: Transcript, text: str, language: str) -> CheckHeardResponse:
    """Look for a passage in what the agent said.

    Args:
        transcript: Of the call, as it stands.
        text: The passage.
        language: What the agent speaks, BCP 47; for the forms of numbers.

    Raises:
        InvalidRequest: The passage has no word in it.
    """
    turns = [turn for turn in transcript.turns if turn.role == Role.ROLE_AGENT]
    try:
        answer = passage.check_heard(text, [_said(turn) for turn in turns], language)
    except ValueError as error:
        raise InvalidRequest("passage: give at least one word") from error
    return CheckHeardResponse(
        result=PassageResult.Value(answer.result.value),
        turns=[turns[index].item_id for index in answer.turns],
        share=answer.share,
    )


def spoken_language(facts: Iterable[Fact]) -> str:
    """What the agent speaks, by the newest session that says it; English when none does."""
    language = "en"
    for fact in facts:
        if fact.HasField("session_started") and fact.session_started.language:
            language = fact.session_started.language
    return language


def _said(turn: Turn) -> list[passage.SaidWord]:
    return [
        passage.SaidWord(word.text, _FATES.get(word.heard, heard.Heard.NONE), counts=_counts(word))
        for word in turn.words
    ]


def _counts(word: Word) -> bool:
    """Whether the word is part of what was heard: by its own verdict, whatever stands around it."""
    return word.heard == Heard.HEARD_FULL or (
        word.heard == Heard.HEARD_PARTIAL and word.played_share >= 0.5
    )
