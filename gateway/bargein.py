"""What one barge-in cost, from the caller's first sound to silence on the line. Pure.

The whole is measured on Twilio's media clock alone, between two of its timestamps, and so holds
whatever the networks do. The stages say where the time goes; each is measured by one clock, but for
the link, which needs the wall clocks of two machines: what they say is held at 0 where they
disagree a little, and not believed where they disagree by more than a link can take.
"""

from __future__ import annotations

from dataclasses import dataclass

from asheard.v1 import fact_pb2, session_service_pb2

MAX_LINK_US = 5_000_000
"""Longer between two wall clocks, or as much the other way round: one of them is wrong. A link that
is slower is given up (runtime/rpc.py)."""

MAX_STAGE_US = 60_000_000
"""What is longer is no part of a barge-in, but a fault of a clock or of a peer, and is not
observed."""


def between_wall_clocks(sent_unix_us: int, now_unix_us: int) -> int | None:
    """How long something was under way between two machines, in microseconds.

    Args:
        sent_unix_us: When it was sent, by the other machine's clock; 0: not said.
        now_unix_us: When it came, by ours.

    Returns:
        None when it is not known: the sender did not say, or the clocks are too far apart.
    """
    link_us = now_unix_us - sent_unix_us
    return max(0, link_us) if sent_unix_us and abs(link_us) <= MAX_LINK_US else None


def is_plausible(duration_us: int) -> bool:
    """Whether a duration may be a barge-in's, or a part of one's."""
    return 0 <= duration_us <= MAX_STAGE_US


@dataclass(slots=True)
class BargeIn:
    """One interrupt that had something to interrupt."""

    interrupt_id: int
    onset_ms: int | None
    """When the caller began to speak, on the call's clock. None: not known."""
    detection_us: int
    """From that sound's arrival at the gateway to the model's word of it."""
    worker_us: int
    """From the model's word to the worker's message."""
    link_us: int | None
    """None: not known, see :func:`between_wall_clocks`."""
    arrived_us: int
    """When the interrupt reached the gateway, by the playhead's clock."""
    cleared_us: int
    """When ``clear`` was in the socket, by the same clock. The same until then."""
    flushed_us: int | None = None
    """When the flush was known, by the same clock. None: not yet, or never."""
    flushed_at_ms: int | None = None
    """When the line fell silent, on the call's clock. None: not yet, or never known."""

    @classmethod
    def from_message(
        cls, interrupt: session_service_pb2.Interrupt, *, arrived_us: int, arrived_unix_us: int
    ) -> BargeIn:
        """As the session worker tells it.

        Args:
            interrupt: Its message.
            arrived_us: When that came, by the playhead's clock.
            arrived_unix_us: The same by the wall clock.
        """
        return cls(
            interrupt_id=interrupt.interrupt_id,
            onset_ms=interrupt.onset_ms if interrupt.HasField("onset_ms") else None,
            detection_us=interrupt.detection_us,
            worker_us=interrupt.worker_us,
            link_us=between_wall_clocks(interrupt.sent_unix_us, arrived_unix_us),
            arrived_us=arrived_us,
            cleared_us=arrived_us,
        )

    @property
    def latency_ms(self) -> int | None:
        """From onset to silence; None when one of them has no timestamp."""
        if self.onset_ms is None or self.flushed_at_ms is None:
            return None
        return max(0, self.flushed_at_ms - self.onset_ms)

    def stages_us(self) -> dict[str, int]:
        """Microseconds by stage, those that are known; without a flush there is no last one."""
        stages = {"detection": self.detection_us, "worker": self.worker_us}
        if self.link_us is not None:
            stages["link"] = self.link_us
        stages["gateway"] = self.cleared_us - self.arrived_us
        if self.flushed_us is not None:
            stages["twilio"] = self.flushed_us - self.cleared_us
        return stages

    def as_fact(self) -> fact_pb2.BargedIn:
        """As the transcript service stores it."""
        stages = self.stages_us()
        return fact_pb2.BargedIn(
            interrupt_id=self.interrupt_id,
            onset_ms=self.onset_ms,
            flushed_at_ms=self.flushed_at_ms,
            detection_us=stages["detection"],
            worker_us=stages["worker"],
            link_us=stages.get("link", 0),
            gateway_us=stages["gateway"],
            twilio_us=stages.get("twilio", 0),
        )
