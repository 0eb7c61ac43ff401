"""One Realtime conversation as a state machine. Pure: events in, outputs out, ``now`` an argument.

This file dispatches the model's events to the parts that it is composed of, and says what an error
means for each of them. What follows is decided there, with the rules at the top:

==========================================  =====================================================
:mod:`~session.realtime.interruptions`      which words were heard, as the model is told
:mod:`~session.realtime.items`              what the model generates: responses, items, and how
                                            long they are remembered
:mod:`~session.realtime.parts`              their audio and text, and the facts about them
:mod:`~session.realtime.order`              which item follows which
:mod:`~session.realtime.functions`          which function calls are carried out, and given up
:mod:`~session.realtime.waiting`            what the caller hears while a function is at work
:mod:`~session.realtime.ends`               what the end of a response means to all of these
:mod:`~session.realtime.replies`            when we ask the model to speak, and what it owes
:mod:`~session.realtime.floor`              who speaks next: debts, and silences while they last
:mod:`~session.realtime.noise`              what the agent says after a sound that was no turn
:mod:`~session.realtime.dead_air`           how long the caller waits in silence, and for what
:mod:`~session.realtime.notices`            what is said without the model
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

from collections.abc import Callable

from asheard.v1 import fact_pb2, session_service_pb2
from session.agent import Agent, greeting_instructions
from session.notices import NO_NOTICES, Notice, NoticeBook
from session.realtime import events
from session.realtime.bounds import MAX_PARTS
from session.realtime.caller import CallerTranscripts
from session.realtime.cuts import Cuts
from session.realtime.debts import Kind
from session.realtime.ends import Ends
from session.realtime.faults import Severity, counted_code, severity
from session.realtime.floor import Floor
from session.realtime.functions import Functions
from session.realtime.input_clock import InputClock
from session.realtime.interruptions import Interruptions
from session.realtime.items import Items
from session.realtime.line import Line
from session.realtime.noise import Noise
from session.realtime.notices import Notices
from session.realtime.order import Order
from session.realtime.outputs import CallerStopped, Fatal, Note, Output, Outputs
from session.realtime.parts import Parts
from session.realtime.replies import Replies
from session.realtime.setup import Setup
from session.realtime.state import Memory
from session.realtime.waiting import Waiting

_NO_SIGN = frozenset(
    {
        events.SpeechStarted,
        events.SpeechStopped,
        events.Committed,
        events.TranscriptionDelta,
        events.TranscriptionCompleted,
        events.TranscriptionFailed,
        events.RateLimitsUpdated,
        events.Error,
    }
)
"""Events that say nothing of a response's life."""


class Conversation:
    """The machine; see the module for its parts.

    The shell feeds it and carries out :meth:`take` after each call. It calls :meth:`timer` when
    :meth:`next_timer` is due, and passes every frame of the caller's audio through the same
    :class:`~session.realtime.input_clock.InputClock`.

    Args:
        agent: Who speaks.
        model: The model's name, for the facts.
        clock: The model's input buffer against the call's clock.
        jitter: Chance from 0 to 1, so that calls that failed together do not ask together.
        notices: What can be said without the model.
        tag: For the ids of those, unique among the sessions of a call; see
            :class:`~session.realtime.notices.Notices`.
    """

    def __init__(
        self,
        agent: Agent,
        model: str,
        clock: InputClock,
        jitter: Callable[[], float] = lambda: 0.0,
        *,
        notices: NoticeBook = NO_NOTICES,
        tag: str = "",
    ) -> None:
        self._agent = agent
        self._clock = clock
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
        self._replies = replies = Replies(jitter)
        self._notices = Notices(
            notices, tag, setup=self._setup, memory=memory, items=self._items, outputs=outputs
        )
        self._waiting = waiting = Waiting(agent)
        self._functions = Functions(agent, memory, self._order, waiting, outputs)
        self._caller = CallerTranscripts(enabled=agent.transcription is not None)
        self._noise = noise = Noise(agent, memory)
        line = Line(memory)
        self._ends = ends = Ends(
            memory,
            self._items,
            self._functions,
            self._interruptions,
            replies,
            noise,
            line,
            outputs,
        )
        self._floor = Floor(
            memory,
            clock,
            replies,
            self._functions,
            waiting,
            noise,
            line,
            ends,
            self._notices,
            outputs,
        )
        self._due: float | None = None
        """When something is due without any event; looked at with each of them."""

    # --- what the shell asks ---------------------------------------------------------------

    def take(self) -> list[Output]:
        """What is to be done, in order; handed over once."""
        return self._outputs.take()

    @property
    def configured(self) -> bool:
        """The model has accepted the session's configuration: audio may be appended."""
        return self._setup.configured

    @property
    def waiting_for_caller(self) -> bool:
        """Whether words of the caller are still to be transcribed."""
        return self._caller.outstanding or self._commit_id is not None

    def next_timer(self) -> float | None:
        """When :meth:`timer` wants to be called, in monotonic seconds; None: not at all."""
        return self._due

    # --- what the shell tells --------------------------------------------------------------

    def open(self) -> None:
        """The socket is open."""
        self._setup.open()

    def timer(self, *, now: float) -> None:
        """Do what is due."""
        self._after_all(now)

    def caller_left(self, *, now: float) -> None:
        """The media stream is over: nothing more can be heard, some may still be transcribed."""
        self._memory.caller_left = True
        self._outputs.extend(self._caller.left(now=now))
        self._floor.close(now=now)
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
        self._after_all(now)

    def finish(self, *, failed: bool) -> None:
        """The socket is closed: report what was left open. Only positions may follow."""
        self._setup.record()
        self._items.finish(
            fact_pb2.GENERATION_STATUS_FAILED if failed else fact_pb2.GENERATION_STATUS_CANCELLED
        )
        self._outputs.extend(self._caller.finish())

    def model_left(self, *, now: float) -> None:
        """The model will say nothing any more, while the caller is there: :meth:`finish`, and
        nobody waits for an answer. What is to be said about it, :meth:`say` says."""
        self._floor.close(now=now)
        self.finish(failed=True)

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

    def words_timed(self, fact: fact_pb2.WordsTimed) -> None:
        """When words of the agent's sound was found out."""
        self._noise.words_timed(fact)

    def say(self, notice: Notice) -> float:
        """Say a sentence without the model; its length in seconds, 0 when it was not said."""
        return self._notices.say(notice)

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
        if self._memory.stirred or (self._due is not None and now >= self._due):
            self._after_all(now)

    def _receive_other(
        self, event: events.AnyServerEvent | events.UnknownEvent | events.MalformedEvent, now: float
    ) -> None:
        if type(event) not in _NO_SIGN:
            self._replies.sign(now)
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
                if self._setup.updated(event.session):
                    self._owe_greeting(now)
            case events.ItemAdded():
                self._item_added(event)
            case events.ItemDone():
                self._ends.item_done(event.item, now=now)
            case events.OutputItemAdded():
                self._items.of_response(event.item, event.response_id)
            case events.OutputItemDone():
                self._items.of_response(event.item, event.response_id)
                self._ends.item_done(event.item, now=now)
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
            case events.ResponseDone():
                self._ends.done(event.response, now=now)
            case events.Committed():
                self._committed(event, now)
            case events.TranscriptionDelta():
                self._outputs.extend(self._caller.delta(event.item_id, event.delta or "", now=now))
            case events.TranscriptionCompleted():
                self._outputs.extend(self._caller.completed(event.item_id, event.transcript or ""))
                self._floor.transcribed(event.item_id, event.transcript or "")
            case events.TranscriptionFailed():
                code = event.error.code if event.error is not None else None
                self._outputs.note(Note.ERROR, f"transcription_{counted_code(code)}")
                self._outputs.extend(self._caller.failed(event.item_id))
                self._floor.transcribed(event.item_id, None)
            case events.ItemTruncated():
                self._outputs.extend(self._cuts.accepted(event.item_id, deletion=False))
            case events.ItemDeleted():
                self._outputs.extend(self._cuts.accepted(event.item_id, deletion=True))
            case events.RateLimitsUpdated():
                _note_rate_limits(event.rate_limits, self._outputs)
                self._floor.limited(event.rate_limits, now=now)
            case events.Error():
                self._error(event.error, now)
            case events.UnknownEvent():
                if not event.expected:
                    self._outputs.note(Note.UNKNOWN_EVENT)
            case events.MalformedEvent():
                self._outputs.note(Note.MALFORMED_EVENT, event.type)

    def _after_all(self, now: float) -> None:
        """What may be due after any event."""
        self._interruptions.timer(now=now)
        self._parts.write_late(now=now)
        self._floor.run(now=now)
        due = self._floor.next_timer()
        for wish in (self._interruptions.next_timer(), self._parts.next_timer()):
            if wish is not None and (due is None or wish < due):
                due = wish
        self._due = due

    # --- the caller ------------------------------------------------------------------------

    def _speech_started(self, event: events.SpeechStarted, now: float) -> None:
        self._floor.speech_started(now=now)
        self._clock.speech(True)
        self._outputs.extend(self._caller.began(event.item_id))
        onset_ms = event.audio_start_ms + self._agent.prefix_padding_ms
        self._outputs.fact(
            "caller_speech_started",
            fact_pb2.CallerSpeechStarted(
                item_id=event.item_id, at_ms=self._clock.media_at(onset_ms)
            ),
        )
        if self._agent.turn_detection.interrupt_response:
            self._interruptions.interrupt(onset_ms, now=now)
            self._floor.cut(now=now)
            self._functions.barge_in()

    def _speech_stopped(self, event: events.SpeechStopped, now: float) -> None:
        self._clock.speech(False)
        end_ms = max(0, event.audio_end_ms - self._agent.trailing_silence_ms)
        self._floor.speech_stopped(end_ms, now=now)
        self._caller.stopped(event.item_id, now=now)
        self._outputs.add(CallerStopped(end_ms))
        self._outputs.fact(
            "caller_speech_stopped",
            fact_pb2.CallerSpeechStopped(item_id=event.item_id, at_ms=self._clock.media_at(end_ms)),
        )

    def _committed(self, event: events.Committed, now: float) -> None:
        self._commit_id = None
        self._floor.committed(event.item_id, now=now)
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
            self._memory.stirred = True
            self._functions.result_added(item)
            self._order.stand_in(item.id, previous)

    def _arguments_done(self, event: events.ArgumentsDone) -> None:
        if self._items.response(event.response_id) is None:
            return
        said = events.Item(
            event.item_id, type="function_call", name=event.name, call_id=event.call_id
        )
        item = self._items.of_response(said, event.response_id)
        if item is not None:
            self._functions.arguments_done(item, event.arguments)

    def _owe_greeting(self, now: float) -> None:
        """Let the model speak first."""
        greeting = greeting_instructions(self._agent)
        self._memory.stirred = True
        if greeting is not None:
            self._replies.owe(Kind.GREETING, now=now, instructions=greeting)

    def _error(self, detail: events.ErrorDetail, now: float) -> None:
        self._memory.stirred = True
        self._outputs.note(Note.ERROR, counted_code(detail.code))
        event_id = detail.event_id
        if severity(detail) is Severity.FATAL:
            self._outputs.add(Fatal(f"the model reported {detail.code}"))
            return
        if self._setup.refused(detail):
            return
        if event_id is not None:
            self._functions.result_refused(event_id)
        self._replies.refused(detail, now=now)
        if event_id is not None and event_id == self._commit_id:
            self._commit_id = None
        self._outputs.extend(self._cuts.refused(detail))


def _note_rate_limits(limits: list[events.RateLimit], outputs: Outputs) -> None:
    for limit in limits[:MAX_PARTS]:
        if limit.limit and limit.limit > 0 and limit.remaining is not None:
            name = limit.name if limit.name in ("requests", "tokens") else "other"
            remaining = min(max(0.0, limit.remaining), limit.limit)
            outputs.note(Note.RATE_LIMIT, name, int(1000 * (remaining / limit.limit)))
