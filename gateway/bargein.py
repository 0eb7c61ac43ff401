"""What one barge-in cost, from the caller's first sound to silence on the line. Pure.

The whole is measured on Twilio's media clock alone, between two of its dates, and so holds
whatever the networks do. The stages say where the time goes; each is measured by one clock, but
for the link, which needs the wall clocks of two machines and is held at 0 when they disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from asheard.v1 import fact_pb2


@dataclass(slots=True)
class BargeIn:
    """One interrupt that had something to interrupt."""

    interrupt_id: int
    onset_ms: int | None
    """When the caller began to speak, on the call's clock. None: not known."""
    detection_us: int
    worker_us: int
    link_us: int
    arrived_us: int
    """When the interrupt reached the gateway, by the playhead's clock."""
    cleared_us: int
    """When ``clear`` was in the socket, by the same clock."""
    flushed_us: int | None = None
    """When the flush was known, by the same clock. None: not yet, or never."""
    flushed_at_ms: int | None = None
    """When the line fell silent, on the call's clock. None: not yet, or never known."""

    @property
    def latency_ms(self) -> int | None:
        """From onset to silence; None when one of them has no date."""
        if self.onset_ms is None or self.flushed_at_ms is None:
            return None
        return max(0, self.flushed_at_ms - self.onset_ms)

    def stages_us(self) -> dict[str, int]:
        """Microseconds by stage; without a flush there is no last stage."""
        stages = {
            "detection": self.detection_us,
            "worker": self.worker_us,
            "link": self.link_us,
            "gateway": self.cleared_us - self.arrived_us,
        }
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
            link_us=stages["link"],
            gateway_us=stages["gateway"],
            twilio_us=stages.get("twilio", 0),
        )
