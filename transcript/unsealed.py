"""What readers are told of a call that is final by its facts and not yet in the store (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import CallState, Transcript
from transcript.join import join
from transcript.join.lifecycle import outstanding
from transcript.join.log import call_log


def last_open(facts: Sequence[Fact]) -> Transcript:
    """The newest transcript on the way to these facts that was not final.

    Equal revisions mean equal transcripts, and final is told by the store alone (ADR 9). So until a
    call is sealed, readers get what stood before the fact that was the last to be missing.

    Args:
        facts: Of one call, in the order of their storing; at least one.

    Returns:
        What ``join`` makes of the first so many of them. Of revision 0 when the very first fact
        left nothing missing.
    """
    for count in range(len(facts) - 1, 0, -1):
        if not outstanding(call_log(facts[:count])).nothing:
            return join(facts[:count])
    return Transcript(call_sid=facts[0].call_sid, state=CallState.CALL_STATE_ACTIVE)
