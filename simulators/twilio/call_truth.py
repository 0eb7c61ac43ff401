"""What really happened on one simulated call, for tests to hold a bridge's account against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from simulators.twilio.caller import StepTaken
from simulators.twilio.stream_truth import CallerLine, StreamTruth

Ending = Literal["hung_up", "server_closed", "server_lost", "dropped", "failed", "no_stream"]


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller began to speak while the agent was audible."""

    line: str
    """Name of the caller's line."""
    onset_ms: int
    """When the caller's first word began, on the media clock."""
    silent_ms: int
    """When the agent fell silent."""
    flushed: bool
    """It was a ``clear`` that silenced the agent; otherwise it had run out of audio."""

    @property
    def latency_ms(self) -> int:
        """From the caller's onset to silence on the line."""
        return self.silent_ms - self.onset_ms


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request the carrier made for the call."""

    kind: Literal["voice", "action", "status"]
    status: int
    """HTTP status of the answer; 0 if there was none."""
    event: str = ""
    """``StreamEvent`` of a status callback."""


@dataclass(slots=True)
class CallTruth:
    """One call: its streams, what was played on each, and what the caller did."""

    call_sid: str
    account_sid: str
    from_number: str
    to_number: str
    tag: int
    """The call's number in the tags of its frames."""
    streams: list[StreamTruth] = field(default_factory=list)
    steps: list[StepTaken] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Errors of Twilio's before or between streams: ``CODE: text``."""
    parameters: dict[str, str] = field(default_factory=dict)
    """``customParameters`` of the last stream."""
    ending: Ending = "failed"
    close_code: int | None = None
    """Code of the last socket's close, 1006 for none."""

    @property
    def frames_sent(self) -> int:
        """Caller frames over all streams."""
        return sum(stream.frames_sent for stream in self.streams)

    @property
    def played_ms(self) -> int:
        """Agent audio that sounded, over all streams."""
        return sum(s.end_byte - s.start_byte for t in self.streams for s in t.played) // 8

    @property
    def warnings(self) -> list[str]:
        """Every warning of every stream and error of the call: ``CODE: text``."""
        of_streams = [f"{w.code}: {w.detail}" for t in self.streams for w in t.warnings]
        return self.errors + of_streams

    @property
    def caller_lines(self) -> list[CallerLine]:
        """What the caller said, in order."""
        return [line for stream in self.streams for line in stream.caller_lines]

    @property
    def noises(self) -> list[CallerLine]:
        """Sounds of the caller's without a word in them, in order."""
        return [noise for stream in self.streams for noise in stream.noises]

    @property
    def barge_ins(self) -> list[BargeIn]:
        """Each time the caller cut in."""
        return [b for stream in self.streams for b in _barge_ins(stream)]

    @property
    def timed_out_steps(self) -> list[int]:
        """Steps of the script whose occasion never came."""
        return [step.index for step in self.steps if step.timed_out]

    def to_json(self) -> bytes:
        """One JSON object; audio in base64."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> CallTruth:
        """Read what :meth:`to_json` wrote."""
        return msgspec.json.decode(data, type=cls)


def _barge_ins(stream: StreamTruth) -> list[BargeIn]:
    found = []
    for line in stream.caller_lines:
        for stretch in stream.played:
            if stretch.start_ms <= line.onset_ms < stretch.end_ms:
                flushed = any(
                    f.start_byte == stretch.end_byte and f.at_ms == stretch.end_ms
                    for f in stream.flushes
                )
                found.append(BargeIn(line.name, line.onset_ms, stretch.end_ms, flushed))
    return found
