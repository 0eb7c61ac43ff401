"""One Realtime conversation as a state machine. Pure: events in, outputs out, ``now`` an argument.

This file dispatches the model's events, and says what the end of a response and an error mean for
each of the parts that it is composed of. What follows is decided there, with the rules at the top:

==========================================  =====================================================
:mod:`~session.realtime.interruptions`      which words were heard, as the model is told
:mod:`~session.realtime.items`              what the model generates: responses, items, and how
                                            long they are remembered
:mod:`~session.realtime.parts`              their audio and text, and the facts about them
:mod:`~session.realtime.order`              which item follows which
:mod:`~session.realtime.functions`          which function calls are carried out, and given up
:mod:`~session.realtime.waiting`            what the caller hears while a function is at work
:mod:`~session.realtime.replies`            when we ask the model to speak
:mod:`~session.realtime.setup`              the session's configuration
:mod:`~session.realtime.caller`             what the caller was transcribed to have said
:mod:`~session.realtime.cuts`               what the model was told to cut, until it has answered
==========================================  =====================================================

They share :class:`~session.realtime.state.Memory`, and put what they want done into
:class:`~session.realtime.outputs.Outputs`. None knows this file, and none knows another but those
that its constructor takes.

The server is a peer: what it sends is bounded (:mod:`session.realtime.bounds`), and what lies
beyond is dropped and counted.
"""

from __future__ import annotations

from asheard.v1 import fact_pb2, session_service_pb2
from session.agent import Agent, greeting_instructions
from session.realtime import events
from session.realtime.bounds import MAX_ITEMS_A_RESPONSE, MAX_PARTS
from session.realtime.caller import CallerTranscripts
from session.realtime.cuts import Cuts
from session.realtime.faults import Severity, counted_code, is_fatal_code, severity, told_code
from session.realtime.functions import Functions
from session.realtime.input_clock import InputClock
from session.realtime.interruptions import Interruptions
from session.realtime.items import Items
from session.realtime.order import Order
from session.realtime.outputs import CallerStopped, Fatal, Note, Output, Outputs
from session.realtime.parts import Parts
from session.realtime.replies import Owed, Replies
from session.realtime.setup import Setup
from session.realtime.state import Memory, Response
from session.realtime.waiting import Waiting

MAX_TOKENS = 10**9
"""Of one kind in one response; more is a mistake, and a counter does not go back."""

_GENERATION_STATUS = {
    "completed": fact_pb2.GENERATION_STATUS_COMPLETED,
    "cancelled": fact_pb2.GENERATION_STATUS_CANCELLED,
    "incomplete": fact_pb2.GENERATION_STATUS_INCOMPLETE,
    "failed": fact_pb2.GENERATION_STATUS_FAILED,
}


class Conversation:
    """The machine; see the module for its parts.

    The shell feeds it and carries out :meth:`take` after each call. It calls :meth:`timer` when
    :meth:`next_timer` is due, and passes every frame of the caller's audio through the same
    :class:`~session.realtime.input_clock.InputClock`.

    Args:
        agent: Who speaks.
        model: The model's name, for the facts.
        clock: The model's input buffer against the call's clock.
    """

    def __init__(self, agent: Agent, model: str, clock: InputClock) -> None:
        self._agent = agent
        self._clock = clock
        self._greeted = agent.greeting is None
        self._commit_id: str | None = None
        """Of our own commit of the caller's last words, until it is answered."""
        self._memory = memory = Memory()
        self._outputs = outputs = Outputs()
        self._setup = Setup(agent, model, outputs)
        self._cuts = Cuts()
        self._interruptions = Interruptions(memory, self._cuts, outputs)
        self._order = Order(outputs)
        self._parts = Parts(memory, self._interruptions, outputs)
        self._items = Items(memory, self._order, self._parts, self._interruptions, outputs)
        self._waiting = Waiting(agent)
        self._functions = Functions(agent, memory, self._order, self._waiting, outputs)
        self._caller = CallerTranscripts(enabled=agent.transcription is not None)
        self._replies = Replies()

    # --- what the shell asks ---------------------------------------------------------------

    def take(self) -> list[Output]:
        """What is to be done, in order; handed over once."""
        return self._outputs.take()

    @property
    def configured(self) -> bool:
        """The model has accepted the session's configuration: audio may be appended."""
        return self._setup.configured

    @property
    def responding(self) -> bool:
        """A response is under way."""
        return bool(self._memory.responses)

    @property
    def waiting_for_caller(self) -> bool:
        """Whether words of the caller are still to be transcribed."""
        return self._caller.outstanding or self._commit_id is not None

    def next_timer(self) -> float | None:
        """When :meth:`timer` wants to be called, in monotonic seconds; None: not at all."""
        due: float | None = None
        for wish in (
            self._interruptions.next_timer(),
            self._parts.next_timer(),
            None if self._memory.responses else self._replies.next_timer(responding=False),
        ):
            if wish is not None and (due is None or wish < due):
                due = wish
        return due

    # --- what the shell tells --------------------------------------------------------------

    def open(self) -> None:
        """The socket is open."""
        self._setup.open()

    def timer(self, *, now: float) -> None:
        """Do what is due."""
        self._interruptions.timer(now=now)
        self._after_all(now)

    def caller_left(self, *, now: float) -> None:
        """The media stream is over: nothing more can be heard, some may still be transcribed."""
        self._memory.caller_left = True
        self._replies.stop()
        for response in self._memory.responses.values():
            if not response.interrupted:
                response.interrupted = True
                self._outputs.send(
                    events.CancelResponse(
                        event_id=self._outputs.event_id(), response_id=response.response_id
                    )
                )
        if self._replies.speaking and self._agent.transcription is not None:
            # Voice detection would wait for a silence that never comes.
            self._commit_id = self._outputs.event_id()
            self._outputs.send(events.CommitAudio(event_id=self._commit_id))

    def finish(self, *, failed: bool) -> None:
        """The socket is closed: report what was left open. Only positions may follow."""
        self._setup.record()
        self._items.finish(
            fact_pb2.GENERATION_STATUS_FAILED if failed else fact_pb2.GENERATION_STATUS_CANCELLED
        )
        self._outputs.extend(self._caller.finish())

    def ended(self, reason: str, *, failed: bool) -> None:
        """The session is over. Nothing may be fed after this; the last fact is written."""
        self._setup.record()
        self._outputs.extend(self._cuts.finish())
        self._outputs.fact("session_ended", fact_pb2.SessionEnded(reason=reason, failed=failed))

    def tool_returned(self, call_id: str, output: str, *, now: float) -> None:
        """A function of :class:`CallTool` has answered; ``output`` is for the model."""
        self._functions.returned(call_id, output)
        self._after_all(now)

    def positions_fixed(self, fixed: session_service_pb2.PositionsFixed) -> None:
        """The gateway's last word on some parts: how much of each was played."""
        self._interruptions.positions_fixed(fixed)
        self._items.forget()

    # --- what the model says ---------------------------------------------------------------

    def receive(
        self,
        event: events.AnyServerEvent | events.UnknownEvent | events.MalformedEvent,
        *,
        now: float,
    ) -> None:
        """Take in one event of the model's."""
        # The two that come most, by their exact type: a pattern that a struct does not match takes
        # five times as long.
        if type(event) is events.AudioDelta:
            self._items.audio(event, now=now)
        elif type(event) is events.TranscriptDelta:
            self._items.text(event, now=now)
        else:
            self._receive_other(event, now)
        self._after_all(now)

    def _receive_other(
        self, event: events.AnyServerEvent | events.UnknownEvent | events.MalformedEvent, now: float
    ) -> None:
        match event:
            case events.AudioDelta():  # by its beta name
                self._items.audio(event, now=now)
            case events.TranscriptDelta():
                self._items.text(event, now=now)
            case events.SpeechStarted():
                self._speech_started(event, now)
            case events.SpeechStopped():
                self._speech_stopped(event, now)
            case events.SessionCreated():
                self._setup.record(event.session.id)
            case events.SessionUpdated():
                if self._setup.updated(event.session) and not self._greeted:
                    self._owe_greeting(now)
            case events.ItemAdded():
                self._item_added(event)
            case events.ItemDone():
                self._item_done(event.item, now)
            case events.OutputItemAdded():
                self._items.of_response(event.item, event.response_id)
            case events.OutputItemDone():
                self._items.of_response(event.item, event.response_id)
                self._item_done(event.item, now)
            case events.PartAdded():
                self._items.part_added(event)
            case events.AudioDone():
                self._items.audio_over(event)
            case events.TranscriptDone():
                self._items.whole_text(event, now=now)
            case events.ArgumentsDone():
                self._arguments_done(event)
            case events.ResponseCreated():
                self._items.response(event.response.id)
                self._replies.created()
            case events.ResponseDone():
                self._response_done(event.response, now)
            case events.Committed():
                self._committed(event)
            case events.TranscriptionDelta():
                self._outputs.extend(self._caller.delta(event.item_id, event.delta or "", now=now))
            case events.TranscriptionCompleted():
                self._outputs.extend(self._caller.completed(event.item_id, event.transcript or ""))
            case events.TranscriptionFailed():
                code = event.error.code if event.error is not None else None
                self._outputs.note(Note.ERROR, f"transcription_{counted_code(code)}")
                self._outputs.extend(self._caller.failed(event.item_id))
            case events.ItemTruncated():
                self._outputs.extend(self._cuts.accepted(event.item_id, deletion=False))
            case events.ItemDeleted():
                self._outputs.extend(self._cuts.accepted(event.item_id, deletion=True))
            case events.RateLimitsUpdated():
                _note_rate_limits(event.rate_limits, self._outputs)
            case events.Error():
                self._error(event.error)
            case events.UnknownEvent():
                if not event.expected:
                    self._outputs.note(Note.UNKNOWN_EVENT)
            case events.MalformedEvent():
                self._outputs.note(Note.MALFORMED_EVENT, event.type)

    def _after_all(self, now: float) -> None:
        """What may be due after any event."""
        self._parts.write_late(now=now)
        if self._functions.take_answered():
            self._replies.owe(Owed.RESULTS, at=now)
        if not self._memory.responses:  # nothing is asked for while one is under way
            self._ask(now)

    def _ask(self, now: float) -> None:
        """Let the model speak if that is due."""
        due = self._replies.next_timer(responding=self.responding)
        if due is None or now < due:
            return
        request = self._replies.next(
            self._outputs.event_id("r"), responding=self.responding, now=now
        )
        if request is not None:
            self._outputs.send(request)

    # --- the caller ------------------------------------------------------------------------

    def _speech_started(self, event: events.SpeechStarted, now: float) -> None:
        self._replies.speech_started()
        self._clock.speech(True)
        onset_ms = event.audio_start_ms + self._agent.prefix_padding_ms
        self._outputs.fact(
            "caller_speech_started",
            fact_pb2.CallerSpeechStarted(
                item_id=event.item_id, at_ms=self._clock.media_at(onset_ms)
            ),
        )
        if self._agent.turn_detection.interrupt_response:
            self._interruptions.interrupt(onset_ms, now=now)
            self._functions.barge_in()

    def _speech_stopped(self, event: events.SpeechStopped, now: float) -> None:
        self._replies.speech_stopped(now=now)
        self._clock.speech(False)
        end_ms = max(0, event.audio_end_ms - self._agent.trailing_silence_ms)
        self._outputs.add(CallerStopped(end_ms))
        self._outputs.fact(
            "caller_speech_stopped",
            fact_pb2.CallerSpeechStopped(item_id=event.item_id, at_ms=self._clock.media_at(end_ms)),
        )

    def _committed(self, event: events.Committed) -> None:
        self._commit_id = None
        self._replies.committed()
        self._clock.speech(False)
        self._outputs.extend(self._caller.expect(event.item_id))

    # --- items and responses ---------------------------------------------------------------

    def _item_added(self, event: events.ItemAdded) -> None:
        item = event.item
        previous = self._order.turn(event.previous_item_id)
        is_message = item.type == "message"
        if item.id in self._memory.items:
            self._items.added(item, previous)
        elif is_message and item.role == "user":
            self._order.announce_caller(item.id, previous)
            if any(content.type == "input_audio" for content in item.content or ()):
                self._outputs.extend(self._caller.expect(item.id))
        elif (is_message and item.role == "assistant") or item.type == "function_call":
            self._items.added(item, previous)
        else:
            self._functions.result_added(item)
            self._order.stand_in(item.id, previous)

    def _item_done(self, said: events.Item, now: float) -> None:
        item = self._memory.items.get(said.id)
        if item is None:
            return
        if item.speech:
            self._items.speech_over(item, said, now=now)
        else:
            self._functions.item_done(item, said, now=now)

    def _arguments_done(self, event: events.ArgumentsDone) -> None:
        if self._items.response(event.response_id) is None:
            return
        said = events.Item(
            event.item_id, type="function_call", name=event.name, call_id=event.call_id
        )
        item = self._items.of_response(said, event.response_id)
        if item is not None:
            self._functions.arguments_done(item, event.arguments)

    def _response_done(self, done: events.Response, now: float) -> None:
        status = done.status or "incomplete"  # of one that says nothing, nothing is claimed
        self._outputs.note(Note.RESPONSE, status if status in _GENERATION_STATUS else "other")
        _note_usage(done.usage, self._outputs)
        responses = self._memory.responses
        response_id = done.id
        if not response_id and len(responses) == 1:
            response_id = next(iter(responses))  # which one could not be read
        if not response_id:
            self._outputs.note(Note.MALFORMED_EVENT, "response.done")
            return
        late = self._items.is_over(response_id)
        for output in (done.output or ())[:MAX_ITEMS_A_RESPONSE]:
            item = None if late else self._items.of_response(output, response_id)
            if item is not None and not item.speech:
                self._functions.note_end(item, output)  # the response's own status decides
            else:
                self._item_done(output, now)
        if late:
            return
        response = responses.get(response_id) or Response(response_id)
        cancelled_unasked = status == "cancelled" and not response.interrupted
        if cancelled_unasked and not responses.keys() - {response_id}:
            # Cancelled for speech that began before its first sign: its audio is out already.
            response.interrupted = True
            responses.pop(response_id, None)
            self._interruptions.interrupt(None, now=now)
        self._functions.response_done(response, done.status, now=now)
        generation = _GENERATION_STATUS.get(status, fact_pb2.GENERATION_STATUS_FAILED)
        self._items.response_over(response, generation, told_code(status, done.reason))
        self._greeted = self._greeted or status != "failed"
        if status == "failed":
            self._outputs.note(Note.ERROR, f"response_{counted_code(done.reason)}")
            if is_fatal_code(done.reason):
                self._outputs.add(Fatal(f"response failed: {done.reason}"))
        self._replies.done(
            failed=status == "failed",
            greeting=None if self._greeted else greeting_instructions(self._agent),
            now=now,
        )
        self._items.forget()

    def _owe_greeting(self, now: float) -> None:
        """Let the model speak first."""
        greeting = greeting_instructions(self._agent)
        self._replies.owe(Owed.GREETING, at=now, instructions=greeting)

    def _error(self, detail: events.ErrorDetail) -> None:
        self._outputs.note(Note.ERROR, counted_code(detail.code))
        event_id = detail.event_id
        if severity(detail) is Severity.FATAL:
            self._outputs.add(Fatal(f"the model reported {detail.code}"))
            return
        if self._setup.refused(detail):
            return
        if event_id is not None:
            self._functions.result_refused(event_id)
            self._replies.refused(event_id)
        if event_id is not None and event_id == self._commit_id:
            self._commit_id = None
        self._outputs.extend(self._cuts.refused(detail))


def _note_rate_limits(limits: list[events.RateLimit], outputs: Outputs) -> None:
    for limit in limits[:MAX_PARTS]:
        if limit.limit and limit.limit > 0 and limit.remaining is not None:
            name = limit.name if limit.name in ("requests", "tokens") else "other"
            remaining = min(max(0.0, limit.remaining), limit.limit)
            outputs.note(Note.RATE_LIMIT, name, int(1000 * (remaining / limit.limit)))


def _note_usage(usage: events.Usage | None, outputs: Outputs) -> None:
    if usage is None:
        return
    for direction, details in (
        ("input", usage.input_token_details),
        ("output", usage.output_token_details),
    ):
        if details is not None:
            for kind, tokens in (
                ("text", details.text_tokens),
                ("audio", details.audio_tokens),
                ("cached", details.cached_tokens),
            ):
                amount = min(max(0, tokens or 0), MAX_TOKENS)
                outputs.note(Note.TOKENS, f"{direction}_{kind}", amount)
