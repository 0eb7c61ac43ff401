"""One Realtime session at the model's end, as a pure machine in virtual time.

Feed it client events (:meth:`Engine.receive`) and time (:meth:`Engine.advance`), then collect the
server events (:meth:`Engine.take`). ``now`` is the session's age in whole ms and must not go back.

Rules, with the sections of the protocol notes they come from, and where they are kept:

1. ``session.created`` is first (B.1). An update is merged or refused whole (B.2):
   ``session_config.py``.
2. Input audio is judged on what was written, and becomes turns (B.5 1): ``vad.py``,
   ``caller_turns.py``.
3. A reply comes as planned by ``generation.py``, in the recorded order (B.5): ``responses.py``.
4. Speech during generation cancels the response (B.5 2). After it nothing is cancelled and nothing
   truncated: on a WebSocket that is the client's business (B.5 3).
5. Items are created, truncated, deleted and retrieved by the rules of B.7 and B.9:
   ``conversation.py``.
6. What is wrong with a client event is said in an ``error`` event and changes nothing (B.8):
   ``client_events.py``, ``shape.py``, ``errors.py``.
7. At the end of its life the session says ``session_expired`` and closes with 1001 (B.11).

8. What goes wrong beyond that is the script's: ``faults.py`` has its words, ``mishaps.py`` says what
   befalls each request (``requests.py``), turn, result and reply, ``tampering.py`` what befalls
   the events on their way out.

Not modelled: hosted MCP tools, transcription sessions, the context window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulators.realtime import client_events
from simulators.realtime.caller_turns import CallerTurns
from simulators.realtime.conversation import Conversation
from simulators.realtime.errors import ClientError
from simulators.realtime.faults import ResultFault
from simulators.realtime.mishaps import Mishaps
from simulators.realtime.outbox import Outbox
from simulators.realtime.replies import Replies
from simulators.realtime.requests import Requests
from simulators.realtime.responses import Asked, Responses
from simulators.realtime.script import AgentScript, Drop
from simulators.realtime.session_config import Settings
from simulators.realtime.session_truth import FaultPlayed, Refusal, SessionTruth
from simulators.realtime.tampering import Tampering
from simulators.realtime.wire import Event, Sent

_OVERTAKEN_AT_MOST_MS = 3_000
"""How long a result waits to be overtaken: a client may itself wait for it before it asks."""
_EXPIRY_TEXT = "Your session hit the maximum duration of 60 minutes."


@dataclass(frozen=True, slots=True)
class Close:
    """The engine wants the socket closed."""

    code: int | None
    """None: reset it, without a close frame."""
    reason: str = ""


class Engine:
    """One session of the simulated model."""

    def __init__(
        self,
        script: AgentScript,
        *,
        session_id: str = "sess_0001",
        model: str = "gpt-realtime-2.1",
        created_at_s: int = 0,
        number: int = 0,
        may_drop: Callable[[Drop], bool] = lambda drop: True,
    ) -> None:
        """Open the session: ``session.created`` is the first event to take.

        Args:
            script: What the model says.
            session_id: Name of the session; the names of its items and events come from it.
            model: The connection's ``model``.
            created_at_s: Unix time, for ``expires_at``.
            number: Which session of the simulator this is; faults drawn at random go by it.
            may_drop: Asked before a scripted drop; the holder counts them over all sessions.
        """
        beta = script.names == "beta"
        self.truth = SessionTruth(session_id)
        self.closing: Close | None = None
        """Set when the socket is to be closed; what was sent before still goes out."""
        self._expires_ms = script.expires_after_ms
        self._may_drop = may_drop
        self._script = script
        self._outbox = Outbox(session_id, Tampering(script.events, self.truth), beta=beta)
        self._mishaps = Mishaps(script, self.truth, number)
        self._settings = Settings(
            session_id, model, created_at_s + script.expires_after_ms // 1000, beta=beta
        )
        self._conversation = Conversation(self._outbox, self.truth)
        self._replies = Replies(script, self.truth)
        self._responses = Responses(
            script,
            self._settings,
            self._outbox,
            self._conversation,
            self._replies,
            self._mishaps,
            self.truth,
            drop=self._drop,
            over=lambda audio_ms: self._turns.await_silence(audio_ms),
        )
        self._requests = Requests(
            self._outbox,
            self._mishaps,
            self.truth,
            begin=lambda options: self._responses.create(options, "client"),
            refuse=self._refuse,
            none_before_ms=lambda: self._responses.no_requests_before_ms,
        )
        self._turns = CallerTurns(
            script,
            self._settings,
            self._outbox,
            self._conversation,
            self._replies,
            self._mishaps,
            self.truth,
            interrupt=self._responses.interrupt,
            respond=self._respond_unasked,
        )
        self._awaited: dict[Callable[[], None], ResultFault] = {}
        """Results that have not joined the conversation yet."""
        self._outbox.emit("session.created", session=self._settings.shown())

    # --- facts in ------------------------------------------------------------------------------

    def receive(self, message: str | bytes, now: int) -> None:
        """Take a frame of the client."""
        self.advance(now)
        if self.closing is not None:
            return
        event: Event = {}
        try:
            event = client_events.parse(message)
            self._handle(event)
        except ClientError as error:
            self._refuse(error, event)

    def advance(self, now: int) -> None:
        """Let time pass up to ``now``.

        Raises:
            ValueError: ``now`` lies in the past.
        """
        if now < self._outbox.now_ms:
            raise ValueError(f"now ({now}) is before the last call ({self._outbox.now_ms})")
        while (due := self.next_due_ms()) is not None and due <= now:
            self._outbox.now_ms = max(self._outbox.now_ms, due)
            self._do_next(due)
        self._outbox.now_ms = now

    def end(self, how: str) -> None:
        """Note that the socket is gone."""
        if self.truth.ending == "open":
            self.truth.ending = how

    # --- answers out ---------------------------------------------------------------------------

    def take(self) -> list[Sent]:
        """Server events since the last call, in order."""
        taken, self._outbox.events = self._outbox.events, []
        return taken

    @property
    def has_output(self) -> bool:
        """There is something to take, or the socket is to be closed."""
        return bool(self._outbox.events) or self.closing is not None

    def next_due_ms(self) -> int | None:
        """When :meth:`advance` next has something to do; None once the session is over."""
        if self.closing is not None:
            return None
        dues = (self._outbox.next_timer_ms(), self._responses.next_due_ms(), self._expires_ms)
        return min(due for due in dues if due is not None)

    # --- inside --------------------------------------------------------------------------------

    def _do_next(self, due: int) -> None:
        if due == self._expires_ms:
            self._expire()
        elif due == self._outbox.next_timer_ms():
            self._outbox.run_first_timer()
        else:
            self._responses.run_first_step()

    def _handle(self, event: Event) -> None:
        client_events.check(event)
        kind = event["type"]
        self.truth.client_events[kind] = self.truth.client_events.get(kind, 0) + 1
        match kind:
            case "input_audio_buffer.append":
                self._turns.append(event["audio"])
            case "input_audio_buffer.commit":
                self._turns.commit()
            case "input_audio_buffer.clear":
                self._turns.clear()
            case "session.update":
                self._settings.update(
                    event["session"], assistant_audio_present=self._conversation.has_assistant_audio
                )
                self._turns.configure()
                self._outbox.emit("session.updated", session=self._settings.shown())
            case "conversation.item.create":
                self._take_item(event)
            case "conversation.item.retrieve":
                self._conversation.retrieve(event["item_id"])
            case "conversation.item.truncate":
                self._conversation.truncate(event["item_id"], event["audio_end_ms"])
            case "conversation.item.delete":
                self._conversation.delete(event["item_id"])
            case "response.create":
                self._join_results()  # A client's events are taken in order.
                self._requests.receive(event)
            case "response.cancel":
                self._responses.cancel(event.get("response_id"))

    def _take_item(self, event: Event) -> None:
        item, previous = event["item"], event.get("previous_item_id")
        fault = None
        if item["type"] == "function_call_output":
            fault = self._mishaps.of_result()
        if fault is None:
            self._create_item(item, previous)
            return

        def join() -> None:
            if self._awaited.pop(join, None) is None:
                return  # It has joined already.
            try:
                self._create_item(item, previous)
            except ClientError as error:
                self._refuse(error, event)

        self._awaited[join] = fault
        after_ms = fault.after_ms
        if fault.overtaken:
            after_ms = after_ms or _OVERTAKEN_AT_MOST_MS
        self._outbox.after(after_ms, join)
        what = "overtaken" if fault.overtaken else "late_result"
        self.truth.faults.append(FaultPlayed(self._outbox.now_ms, what, item["call_id"]))

    def _create_item(self, wire: Event, previous: str | None) -> None:
        self._conversation.create(wire, previous)
        match wire["type"]:
            case "message":
                text = " ".join(str(part.get("text", "")) for part in wire["content"])
                self.truth.seeded.append((wire["role"], text))
                if wire["role"] == "user":
                    self._replies.note_input(text)
                elif wire["role"] == "assistant":
                    self._replies.note_said(text)
            case "function_call_output":
                self.truth.tool_outputs.append((wire["call_id"], wire["output"]))
                self._replies.note_input(wire["output"])

    def _join_results(self, *, overtaken_alone: bool = False) -> None:
        for join, fault in list(self._awaited.items()):
            if fault.overtaken or not overtaken_alone:
                join()

    def _respond_unasked(self, asked: Asked) -> None:
        try:
            self._responses.create({}, asked)
            self._join_results(overtaken_alone=True)
        except ClientError as error:
            self._refuse(error, {})

    def _refuse(self, error: ClientError, event: Event) -> None:
        kind, event_id = event.get("type"), event.get("event_id")
        self.truth.refusals.append(
            Refusal(
                self._outbox.now_ms,
                error.code,
                error.message,
                error.param,
                kind if isinstance(kind, str) else "",
            )
        )
        named = error.names_event and self._script.names_in_errors
        self._say_error(
            error.code,
            error.message,
            error.param,
            event_id if named and isinstance(event_id, str) else None,
        )

    def _say_error(
        self, code: str | None, message: str, param: str | None, event_id: str | None
    ) -> None:
        error = {
            "type": "server_error" if code == "server_error" else "invalid_request_error",
            "code": code,
            "message": message,
            "param": param,
            "event_id": event_id,
        }
        self._outbox.emit("error", error=error)

    def _drop(self, drop: Drop) -> None:
        if self._may_drop(drop):
            self.truth.ending = "dropped"
            self.closing = Close(drop.close_code, "dropped by the script")

    def _expire(self) -> None:
        self._say_error("session_expired", _EXPIRY_TEXT, None, None)
        self.truth.ending = "expired"
        self.closing = Close(1001, _EXPIRY_TEXT)
