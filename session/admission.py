"""Whether this worker takes another call, and what gateways hear of its load. Pure.

It takes at most ``max_calls``, none while its event loop is late, none while it drains, and says so
in load reports, so that gateways need not ask in vain.
"""

from __future__ import annotations

from asheard.v1 import session_service_pb2

_MAX_LAG_US = 2**32 - 1
"""What the report's field holds: a worker that was halted for longer than an hour says this."""


class Admission:
    """Decides about new calls from facts that are handed in.

    Args:
        max_calls: How many to take at most.
        max_lag_s: No new ones while the event loop is usually later than this, in seconds.
    """

    def __init__(self, *, max_calls: int, max_lag_s: float) -> None:
        self._max_calls = max_calls
        self._max_lag_s = max_lag_s
        self._draining = False

    def drain(self) -> None:
        """Take no new calls from now on."""
        self._draining = True

    def refusal(
        self, *, active_calls: int, usual_lag_s: float
    ) -> session_service_pb2.CallRefused | None:
        """Why no call can be taken now; None when one can.

        Args:
            active_calls: Calls under way.
            usual_lag_s: How late the event loop usually is, in seconds.
        """
        if self._draining:
            return session_service_pb2.CallRefused(
                reason=session_service_pb2.REFUSAL_REASON_DRAINING,
                detail="the worker is shutting down",
            )
        if active_calls >= self._max_calls:
            return exhausted(f"the worker has {self._max_calls} calls, its most")
        if usual_lag_s > self._max_lag_s:
            late_ms = usual_lag_s * 1000
            return exhausted(f"the worker is short of CPU: its event loop is {late_ms:.0f} ms late")
        return None

    def load_report(
        self, *, active_calls: int, recent_lag_s: float
    ) -> session_service_pb2.LoadReport:
        """How much this worker has to do.

        Args:
            active_calls: Calls under way.
            recent_lag_s: The latest that the event loop was within the last second, in seconds.
        """
        return session_service_pb2.LoadReport(
            active_calls=active_calls,
            max_calls=self._max_calls,
            event_loop_lag_us=min(int(recent_lag_s * 1_000_000), _MAX_LAG_US),
            draining=self._draining,
        )


def exhausted(detail: str) -> session_service_pb2.CallRefused:
    """A refusal that lets the gateway ask another worker; ``detail`` is for its log."""
    return session_service_pb2.CallRefused(
        reason=session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED, detail=detail
    )
