"""After a killed worker or gateway, no word is claimed that was not heard (unit, virtual time)."""

from __future__ import annotations

import pytest

from bench.deaths import GATEWAY, WORKER, deaths, lines, measure


@pytest.mark.parametrize("killed", [WORKER, GATEWAY])
def test_no_transcript_claims_a_word_that_was_not_heard(killed: str) -> None:
    result = measure(deaths(lines(None), killed, 40), killed)
    assert result.final == result.deaths == 40
    assert result.claimed_unheard == 0
    # And it is not silent about everything: what it does not claim, it marks.
    assert 0 < result.heard_unclaimed < result.words_heard * 0.6
    assert result.of_which_uncertain > result.heard_unclaimed * 0.95
