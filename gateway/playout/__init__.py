"""PURE. How much of what was sent the caller heard.

playhead    the machine: facts in, positions out; start here
fixing      how the position of a part is fixed
estimate    the rules by which a position and its range are found
clock       Twilio's media clock, and what it can time
stretch     what was sent between two clears, with its marks
echoes      names of marks, and which echoes of them are expected
trace       what the machine was told, for a replay
positions   the values that go in and come out
replay      a stored trace as a call again, and as a scenario file
"""

from gateway.playout.echoes import Counts
from gateway.playout.playhead import Playhead
from gateway.playout.positions import (
    Cause,
    Evidence,
    Flushed,
    ItemPosition,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PlayoutEvent,
    PositionFixed,
    PositionsSettled,
    Rule,
    Sent,
    TimedBy,
    TraceEvent,
    TraceKind,
)

__all__ = [
    "Cause",
    "Counts",
    "TimedBy",
    "Evidence",
    "Flushed",
    "ItemPosition",
    "Part",
    "PlaybackProgressed",
    "PlaybackStarted",
    "Playhead",
    "PlayoutEvent",
    "PositionFixed",
    "PositionsSettled",
    "Rule",
    "Sent",
    "TraceEvent",
    "TraceKind",
]
