"""Requests to speak: every ``response.create`` of the client, answered or not. Pure.

1. A request that the script refuses, leaves unanswered or answers late is dealt with so.
2. While the last ``rate_limits.updated`` left nothing, requests are refused until the time it said.
3. Any other one begins a response, or is refused because another holds the conversation.
"""

from __future__ import annotations

from collections.abc import Callable

from simulators.realtime.errors import ClientError
from simulators.realtime.faults import RequestFault
from simulators.realtime.mishaps import Mishaps
from simulators.realtime.outbox import Outbox
from simulators.realtime.session_truth import FaultPlayed, Request, SessionTruth
from simulators.realtime.wire import Event


class Requests:
    """The requests of one session."""

    def __init__(
        self,
        outbox: Outbox,
        mishaps: Mishaps,
        truth: SessionTruth,
        *,
        begin: Callable[[Event], str],
        refuse: Callable[[ClientError, Event], None],
        none_before_ms: Callable[[], int],
    ) -> None:
        """Begin with none.

        Args:
            outbox: The session's clock and timers.
            mishaps: What goes wrong.
            truth: Where the facts are kept.
            begin: Begins a response with these options and returns its id, or raises ClientError.
            refuse: Says an error about an event.
            none_before_ms: Age of the session before which no request is left.
        """
        self._outbox = outbox
        self._mishaps = mishaps
        self._truth = truth
        self._begin = begin
        self._refuse = refuse
        self._none_before_ms = none_before_ms

    def receive(self, event: Event) -> None:
        """Take a request; its fields have been checked."""
        now_ms = self._outbox.now_ms
        options = event.get("response") or {}
        request = Request(now_ms, event.get("event_id"), options.get("instructions"))
        self._truth.requests.append(request)
        fault = self._mishaps.of_request(now_ms)
        if fault is not None:
            self._go_wrong(fault, request, event)
            return
        left_ms = self._none_before_ms() - now_ms
        if left_ms > 0:
            self._played("no_requests_left", request)
            text = f"Rate limit reached. Please try again in {left_ms / 1000:g}s."
            self._answer(request, event, ClientError("rate_limit_exceeded", text))
        else:
            self._answer(request, event, None)

    def _go_wrong(self, fault: RequestFault, request: Request, event: Event) -> None:
        error: ClientError | None = None
        match fault.answer:
            case "none":
                self._played("unanswered", request)
                return
            case "response":
                self._played("answered_late", request)
            case "error":
                self._played("refused", request)
                error = ClientError(fault.code, fault.message)
                error.names_event = fault.names_request
        if fault.after_ms:
            self._outbox.after(fault.after_ms, lambda: self._answer(request, event, error))
        else:
            self._answer(request, event, error)

    def _answer(self, request: Request, event: Event, error: ClientError | None) -> None:
        request.answered_ms = self._outbox.now_ms
        if error is None:
            try:
                request.response_id = self._begin(event.get("response") or {})
                request.answer = "created"
                return
            except ClientError as conflict:
                error = conflict
        request.answer, request.code = "refused", error.code
        self._refuse(error, event)

    def _played(self, what: str, request: Request) -> None:
        at_ms = self._outbox.now_ms
        self._truth.faults.append(FaultPlayed(at_ms, what, request.event_id or ""))
