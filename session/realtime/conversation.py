"""One Realtime conversation as a state machine. Pure: events in, outputs out, ``now`` an argument.

Theory. The model generates audio faster than anybody can hear it, and puts all of it into the
conversation as if it had been heard. What was heard only the gateway knows, a moment after the
caller cut in. Between the two this machine keeps, per content part, how much was *received* from
the model, and how much of that is *settled*: known to be played, cut or unheard.

Rules:

1. A response is known by its id alone, never as "the current one": late deltas, a late
   ``response.done`` and one without ``response.created`` all occur around interruptions.
2. When the caller begins to speak, the server cancels what it is generating. From then on audio of
   those responses is stale: counted into what was generated, never given to the caller. Playback is
   interrupted only if something may be playing.
3. A part is settled once. Played to its end: nothing to say. Cut: ``truncate`` at the best
   position, floored and never beyond what was received. Nothing of the item heard: ``delete``, also
   when the gateway never saw it. The model may refuse either; the call goes on.
4. An item of an interrupted response is deleted when the response is over, not while the server may
   still be adding to it; a truncation goes out at once, as OpenAI's own clients do.
5. No truncation before the position is known. After 300 ms without one nothing is known about the
   parts that may be playing, since only the gateway sees the marks: they are left as they are. To
   leave an item whole makes the model believe for a while that a sentence was heard; to cut it
   at a guess could delete for ever what was heard. The position is used whenever it comes.
6. All that is generated is reported as a fact once it is final, whatever became of it. Text that
   comes later still, until the session's end, is reported again with what there is then.
7. A function is called when its item is complete and nothing speaks against its response: once the
   caller has begun to speak, how the response ended decides. What was cut off is never called.
8. The server is a peer: what it sends is bounded (:mod:`session.realtime.bounds`), and what lies
   beyond is dropped and counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from google.protobuf.message import Message

from asheard.v1 import fact_pb2, session_service_pb2, transcript_pb2
from session.agent import Agent, greeting_instructions, session_update
from session.realtime import agreed, events
from session.realtime.bounds import (
    MAX_ARGUMENTS_CHARS,
    MAX_CALLS,
    MAX_FACT_BYTES,
    MAX_FACTS,
    MAX_HELD_AUDIO_BYTES,
    MAX_ITEMS,
    MAX_ITEMS_A_RESPONSE,
    MAX_PART_AUDIO_BYTES,
    MAX_PARTS,
    MAX_PIECE_CHARS,
    MAX_REMEMBERED,
    MAX_RESPONSES,
    MAX_TEXT_CHARS,
)
from session.realtime.caller import CallerTranscripts
from session.realtime.cuts import Cuts
from session.realtime.faults import (
    Severity,
    counted_code,
    is_fatal_code,
    severity,
    without_secrets,
)
from session.realtime.input_clock import InputClock, audio_bytes
from session.realtime.outputs import (
    AudioReceived,
    CallerStopped,
    CallTool,
    Fatal,
    Interrupt,
    Note,
    Noted,
    Output,
    PartCut,
    PartGenerated,
    PartPlayed,
    TextReceived,
    ToCaller,
    ToModel,
    WriteFact,
)
from session.realtime.replies import Owed, Replies, State
from session.realtime.state import Item, Part, Response

POSITIONS_S = 0.3
"""How long the positions of a barge-in may take before it is counted as late; see rule 5. A fence
comes back within a round trip to Twilio, 30 to 200 ms."""

PROGRESS_S = 1.0
"""Progress of an item is a fact at most this often, as progress of its playback is; generation is
three to four times as fast, and over after two or three of them."""

_REMEMBERED_ITEMS = 256
"""Items that are over and settled are forgotten beyond this: a late event cannot be that late."""

_MAX_TOKENS = 10**9
"""What is counted of a response's usage at most; a counter does not go back."""

_INTERRUPTED = "The caller interrupted you before this call was complete. It was not carried out."
_BROKEN_OFF = "This call was broken off before it was complete. It was not carried out."
_TOO_MANY = "Too many functions were called at a time. This call was not carried out."
_TOO_LONG = "The arguments were too long. This call was not carried out."
"""What the model is told in place of a result."""

_GENERATION_STATUS = {
    "completed": fact_pb2.GENERATION_STATUS_COMPLETED,
    "cancelled": fact_pb2.GENERATION_STATUS_CANCELLED,
    "incomplete": fact_pb2.GENERATION_STATUS_INCOMPLETE,
    "failed": fact_pb2.GENERATION_STATUS_FAILED,
}

PartKey = tuple[str, int]
"""Item id and content index."""


@dataclass(frozen=True, slots=True)
class _PendingInterrupt:
    late_at: float
    parts: tuple[PartKey, ...]
    """What may have been playing."""


class Conversation:
    """The machine; see the module for the rules.

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
        self._model = model
        self._clock = clock
        self._outputs: deque[Output] = deque()
        self._events_sent = 0
        self._session_id: str | None = None
        self._update_id = ""
        self._told = session_update(agent)
        self._configured = False
        self._greeted = agent.greeting is None
        self._closing = False
        self._last_item_id = ""
        self._stand_in: dict[str, str] = {}
        self._responses: dict[str, Response] = {}
        self._ended: dict[str, None] = {}
        self._items: dict[str, Item] = {}
        self._announced_callers: dict[str, None] = {}
        self._tool_call_responses: dict[str, Response] = {}
        self._called: dict[str, None] = {}
        """Ids of the function calls that were decided about, the newest."""
        self._late: dict[PartKey, float] = {}
        """Parts with text that came behind their last fact, and when it is to be written."""
        self._held_bytes = 0
        """Audio of parts that are not settled."""
        self._facts_written = 0
        self._fact_bytes = 0
        self._differing: set[str] = set()
        self._caller = CallerTranscripts(enabled=agent.transcription is not None)
        self._commit_id: str | None = None
        self._replies = Replies()
        self._interrupts = 0
        self._pending_interrupts: dict[int, _PendingInterrupt] = {}
        self._cuts = Cuts()

    # --- what the shell asks ---------------------------------------------------------------

    def take(self) -> list[Output]:
        """What is to be done, in order; handed over once."""
        outputs = list(self._outputs)
        self._outputs.clear()
        return outputs

    @property
    def configured(self) -> bool:
        """The model has accepted the session's configuration: audio may be appended."""
        return self._configured

    @property
    def responding(self) -> bool:
        """A response is under way."""
        return bool(self._responses)

    @property
    def waiting_for_caller(self) -> bool:
        """Whether words of the caller are still to be transcribed."""
        return self._caller.outstanding or self._commit_id is not None

    def next_timer(self) -> float | None:
        """When :meth:`timer` wants to be called, in monotonic seconds."""
        owed = self._replies.state is State.OWED
        if not self._pending_interrupts and not owed and not self._late:
            return None
        due = [pending.late_at for pending in self._pending_interrupts.values()]
        due += self._late.values()
        reply = self._replies.next_timer(responding=self.responding)
        return min([*due, reply] if reply is not None else due, default=None)

    # --- what the shell tells --------------------------------------------------------------

    def open(self) -> None:
        """The socket is open."""
        self._update_id = self._next_event_id()
        self._send(events.UpdateSession(event_id=self._update_id, session=self._told))

    def timer(self, *, now: float) -> None:
        """Do what is due."""
        for interrupt_id, pending in list(self._pending_interrupts.items()):
            if now >= pending.late_at:
                # Rule 5: not forgotten, only counted.
                self._pending_interrupts[interrupt_id] = _PendingInterrupt(
                    float("inf"), pending.parts
                )
                self._note(Note.POSITIONS_LATE)
        self._write_due(now)
        self._ask(now)

    def caller_left(self, *, now: float) -> None:
        """The media stream is over: nothing more can be heard, some may still be transcribed."""
        self._closing = True
        self._replies.stop()
        for response in self._responses.values():
            if not response.interrupted:
                response.interrupted = True
                self._send(
                    events.CancelResponse(
                        event_id=self._next_event_id(), response_id=response.response_id
                    )
                )
        if self._replies.speaking and self._agent.transcription is not None:
            # Voice detection would wait for a silence that never comes.
            self._commit_id = self._next_event_id()
            self._send(events.CommitAudio(event_id=self._commit_id))

    def finish(self, *, failed: bool) -> None:
        """The socket is closed: report what was left open. Only positions may follow."""
        self._start_facts("")
        status = (
            fact_pb2.GENERATION_STATUS_FAILED if failed else fact_pb2.GENERATION_STATUS_CANCELLED
        )
        for item in self._items.values():
            if not item.done:
                self._item_over(item, status)
        for key in list(self._late):
            self._write_late(key)
        self._outputs.extend(self._caller.finish())

    def ended(self, reason: str, *, failed: bool) -> None:
        """The session is over. Nothing may be fed after this; the last fact is written."""
        self._start_facts("")
        self._outputs.extend(self._cuts.finish())
        self._fact("session_ended", fact_pb2.SessionEnded(reason=reason, failed=failed))

    def tool_returned(self, call_id: str, output: str, *, now: float) -> None:
        """A function of :class:`CallTool` has answered; ``output`` is for the model."""
        self._tell_result(call_id, output)
        response = self._tool_call_responses.pop(call_id, None)
        if response is not None:
            response.tool_calls.discard(call_id)
            self._answer_tools(response, now)
        self._ask(now)

    def positions_fixed(self, fixed: session_service_pb2.PositionsFixed) -> None:
        """The gateway's last word on some parts: how much of each was played."""
        cut = fixed.cause != fact_pb2.POSITION_CAUSE_PLAYED
        talking = fixed.cause == fact_pb2.POSITION_CAUSE_CLEARED
        for position in sorted(fixed.positions, key=lambda p: p.content_index):
            item = self._items.get(position.item_id)
            part = item.parts.get(position.content_index) if item is not None else None
            if item is None or part is None or part.settled or part.position_ms is not None:
                continue
            item.heard |= position.best_ms > 0
            if not cut:
                self._settle(item, position.content_index, part, part.received_ms)
            elif talking:
                part.position_ms = max(0, position.best_ms)
                self._cut(item, position.content_index, part)
            else:
                # The stream is gone: there is no model to be told.
                self._settle(item, position.content_index, part, position.best_ms)
        pending = self._pending_interrupts.pop(fixed.interrupt_id, None)
        for item_id, content_index in pending.parts if pending is not None else ():
            item = self._items.get(item_id)
            part = item.parts.get(content_index) if item is not None else None
            if item is None or part is None or item.removed:
                continue
            if not part.settled and part.position_ms is None:
                # Not named: it never reached Twilio.
                part.position_ms = 0
                self._cut(item, content_index, part)
        self._forget()

    # --- what the model says ---------------------------------------------------------------

    def receive(
        self,
        event: events.AnyServerEvent | events.UnknownEvent | events.MalformedEvent,
        *,
        now: float,
    ) -> None:
        """Take in one event of the model's."""
        match event:
            case events.AudioDelta():
                self._audio_delta(event, now)
            case events.TranscriptDelta():
                self._transcript_delta(event, now)
            case events.SpeechStarted():
                self._speech_started(event, now)
            case events.SpeechStopped():
                self._speech_stopped(event, now)
            case events.SessionCreated():
                self._start_facts(event.session.id)
            case events.SessionUpdated():
                self._session_updated(event, now)
            case events.ItemAdded():
                self._item_added(event)
            case events.ItemDone():
                self._item_done(event.item, now)
            case events.OutputItemAdded():
                self._agent_item(event.item, event.response_id)
            case events.OutputItemDone():
                self._agent_item(event.item, event.response_id)
                self._item_done(event.item, now)
            case events.PartAdded():
                self._part_added(event)
            case events.AudioDone():
                self._audio_done(event)
            case events.TranscriptDone():
                self._transcript_done(event, now)
            case events.ArgumentsDone():
                self._arguments_done(event)
            case events.ResponseCreated():
                self._response(event.response.id)
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
                self._note(Note.ERROR, f"transcription_{counted_code(code)}")
                self._outputs.extend(self._caller.failed(event.item_id))
            case events.ItemTruncated():
                self._outputs.extend(self._cuts.accepted(event.item_id, deletion=False))
            case events.ItemDeleted():
                self._outputs.extend(self._cuts.accepted(event.item_id, deletion=True))
            case events.RateLimitsUpdated():
                self._rate_limits(event)
            case events.Error():
                self._error(event.error)
            case events.UnknownEvent():
                if not event.expected:
                    self._note(Note.UNKNOWN_EVENT)
            case events.MalformedEvent():
                self._note(Note.MALFORMED_EVENT, event.type)
        self._write_due(now)
        self._ask(now)

    def _session_updated(self, event: events.SessionUpdated, now: float) -> None:
        self._start_facts(event.session.id)
        differing = agreed.differences(self._told, event.session)
        for setting in differing:
            if setting not in self._differing:
                self._differing.add(setting)
                self._note(Note.SETTING_DIFFERS, setting)
        if not agreed.FORMATS.isdisjoint(differing):
            self._outputs.append(
                Fatal(f"the model has another audio format than audio/pcmu: {differing[0]}")
            )
            return
        if self._configured:
            return
        self._configured = True
        if not self._greeted:
            greeting = greeting_instructions(self._agent)
            self._replies.owe(Owed.GREETING, at=now, instructions=greeting)

    # --- the caller ------------------------------------------------------------------------

    def _speech_started(self, event: events.SpeechStarted, now: float) -> None:
        self._replies.speech_started()
        self._clock.speech(True)
        onset_ms = event.audio_start_ms + self._agent.prefix_padding_ms
        self._fact(
            "caller_speech_started",
            fact_pb2.CallerSpeechStarted(
                item_id=event.item_id, at_ms=self._clock.media_at(onset_ms)
            ),
        )
        if self._agent.turn_detection.interrupt_response:
            self._interrupt(onset_ms, now)

    def _speech_stopped(self, event: events.SpeechStopped, now: float) -> None:
        self._replies.speech_stopped(now=now)
        self._clock.speech(False)
        end_ms = max(0, event.audio_end_ms - self._agent.trailing_silence_ms)
        self._outputs.append(CallerStopped(end_ms))
        self._fact(
            "caller_speech_stopped",
            fact_pb2.CallerSpeechStopped(item_id=event.item_id, at_ms=self._clock.media_at(end_ms)),
        )

    def _committed(self, event: events.Committed) -> None:
        self._commit_id = None
        self._replies.committed()
        self._clock.speech(False)
        self._outputs.extend(self._caller.expect(event.item_id))

    def _interrupt(self, onset_ms: int | None, now: float) -> None:
        """Rule 2."""
        for response in self._responses.values():
            response.interrupted = True
        asked = {key for pending in self._pending_interrupts.values() for key in pending.parts}
        playing = tuple(
            (item.item_id, content_index)
            for item in self._items.values()
            for content_index, part in item.parts.items()
            if part.sent and not part.settled and part.position_ms is None
            if (item.item_id, content_index) not in asked
        )
        if not playing or self._closing:
            return
        if len(self._pending_interrupts) >= MAX_REMEMBERED:
            del self._pending_interrupts[next(iter(self._pending_interrupts))]
        self._interrupts += 1
        self._pending_interrupts[self._interrupts] = _PendingInterrupt(now + POSITIONS_S, playing)
        self._outputs.append(Interrupt(self._interrupts, onset_ms))

    # --- items and responses ---------------------------------------------------------------

    def _response(self, response_id: str) -> Response | None:
        """The response; None when it is over."""
        if response_id in self._ended:
            return None
        response = self._responses.get(response_id)
        if response is None:
            if len(self._responses) >= MAX_RESPONSES:
                self._note(Note.DROPPED, "response")
                oldest = next(iter(self._responses.values()))
                self._response_over(oldest, fact_pb2.GENERATION_STATUS_INCOMPLETE)
            response = self._responses[response_id] = Response(response_id)
            response.interrupted = self._closing
        return response

    def _agent_item(self, item: events.Item, response_id: str) -> Item | None:
        """The item, as one of a response; None when there is no room, or it is none of the agent's."""
        known = self._items.get(item.id)
        response = self._response(response_id)
        if known is None:
            if item.type not in ("message", "function_call") or item.id in self._announced_callers:
                return None
            if response is not None and len(response.items) >= MAX_ITEMS_A_RESPONSE:
                self._note(Note.DROPPED, "item")
                return None
            known = self._new_item(item)
        if response is not None and not known.response_id:
            known.response_id = response_id
            known.done = bool(known.status)  # it is being generated, whatever its first status
            response.items.append(item.id)
        known.call.name = item.name or known.call.name
        known.call.call_id = item.call_id or known.call.call_id
        return known

    def _new_item(self, item: events.Item) -> Item:
        if len(self._items) >= MAX_ITEMS:
            self._make_room()
        known = self._items[item.id] = Item(item.id, "", speech=item.type == "message")
        return known

    def _make_room(self) -> None:
        """Forget the oldest of what matters least, and report what was generated of it."""
        by_need = sorted(  # stable: the oldest first
            self._items.values(),
            key=lambda item: 0 if item.settled else 1 + (item.response_id in self._responses),
        )
        for item in by_need[: MAX_ITEMS // 8]:
            if not item.settled:
                self._note(Note.DROPPED, "item")
            if not item.done:
                self._item_over(item, fact_pb2.GENERATION_STATUS_INCOMPLETE)
            self._forget_item(item)

    def _speech_part(
        self, response_id: str, item_id: str, content_index: int
    ) -> tuple[Item, Part] | None:
        """The part that an event is about; None when its response is over."""
        response = self._response(response_id)
        if response is None:
            return None
        item = self._items.get(item_id)
        if item is None or not item.response_id or not item.announced:
            item = self._agent_item(events.Item(item_id), response_id)
            if item is not None and item.speech:
                self._announce(item, self._last_item_id)
        if item is None or not item.speech:
            return None
        return item, item.part(content_index)

    def _text_part(
        self, response_id: str, item_id: str, content_index: int
    ) -> tuple[Item, Part] | None:
        """The part that text is about: also of a response that is over, when it is remembered."""
        item = self._items.get(item_id)
        if item is not None and item.status and item.speech:
            return item, item.part(content_index)
        return self._speech_part(response_id, item_id, content_index)

    def _announce(self, item: Item, previous_item_id: str) -> None:
        """Write that an item of the agent's joined the conversation, once."""
        if item.announced:
            return
        item.announced = True
        self._last_item_id = item.item_id
        self._fact(
            "item_added",
            fact_pb2.ItemAdded(
                item_id=item.item_id,
                role=transcript_pb2.ROLE_AGENT if item.speech else transcript_pb2.ROLE_TOOL,
                previous_item_id=previous_item_id,
                response_id=item.response_id,
            ),
        )

    def _item_added(self, event: events.ItemAdded) -> None:
        item = event.item
        previous = event.previous_item_id
        if previous is None:
            previous = ""
        # What is no turn (a tool's result, a system message) is stood in for by the item before it.
        previous = self._stand_in.get(previous, previous)
        known = self._items.get(item.id)
        if known is not None:
            self._added(known, previous)
        elif item.type == "message" and item.role == "user":
            if item.id not in self._announced_callers:
                _remember(self._announced_callers, item.id)
                self._last_item_id = item.id
                self._fact(
                    "item_added",
                    fact_pb2.ItemAdded(
                        item_id=item.id,
                        role=transcript_pb2.ROLE_CALLER,
                        previous_item_id=previous,
                    ),
                )
            if any(content.type == "input_audio" for content in item.content or ()):
                self._outputs.extend(self._caller.expect(item.id))
        elif (item.type == "message" and item.role == "assistant") or item.type == "function_call":
            known = self._new_item(item)
            known.call.name = item.name
            known.call.call_id = item.call_id
            known.done = known.speech and item.status == "completed"
            self._added(known, previous)
        else:
            self._stand_for(item.id, previous)

    def _added(self, item: Item, previous: str) -> None:
        """The server says where an item stands; a function call is a turn once it is called."""
        item.previous = previous
        if item.speech:
            self._announce(item, previous)
        elif not item.announced:
            self._stand_for(item.item_id, previous)

    def _stand_for(self, item_id: str, previous: str) -> None:
        self._stand_in[item_id] = previous
        if len(self._stand_in) > MAX_REMEMBERED:
            del self._stand_in[next(iter(self._stand_in))]

    def _part_added(self, event: events.PartAdded) -> None:
        found = self._speech_part(event.response_id, event.item_id, event.content_index)
        if found is not None:
            _, part = found
            part.audible = event.part.is_audio or part.received_bytes > 0

    def _audio_delta(self, event: events.AudioDelta, now: float) -> None:
        try:
            payload = event.delta.encode("ascii")
        except UnicodeEncodeError:
            payload = b"?"
        n_bytes = audio_bytes(payload)
        if n_bytes is None:
            self._note(Note.MALFORMED_EVENT, "response.output_audio.delta")
            return
        found = self._speech_part(event.response_id, event.item_id, event.content_index)
        if found is None or found[0].done:
            self._note(Note.STALE)
            return
        item, part = found
        if (
            part.received_bytes + n_bytes > MAX_PART_AUDIO_BYTES
            or self._held_bytes + n_bytes > MAX_HELD_AUDIO_BYTES
        ):
            part.short = True
        if part.short:  # once something is missing, what follows would be at the wrong place
            self._note(Note.DROPPED, "audio")
            return
        part.audible = True
        part.received_bytes += n_bytes
        if not part.settled:
            self._held_bytes += n_bytes
        self._outputs.append(AudioReceived(event.item_id, event.content_index, payload))
        if self._responses[event.response_id].interrupted:
            self._note(Note.STALE)
            if part.position_ms is not None:
                # Cut at its very end, so it seemed; now there is something behind the cut.
                self._cut(item, event.content_index, part)
        else:
            part.sent = True
            for at in range(0, len(payload) or 1, MAX_PIECE_CHARS):
                self._outputs.append(
                    ToCaller(event.item_id, event.content_index, payload[at : at + MAX_PIECE_CHARS])
                )
        self._progress(event.item_id, event.content_index, part, now)

    def _transcript_delta(self, event: events.TranscriptDelta, now: float) -> None:
        found = self._text_part(event.response_id, event.item_id, event.content_index)
        if found is None:
            return
        item, part = found
        delta = self._bounded(event.delta, len(part.deltas))
        part.add_text(delta)
        if item.status:
            self._text_came_late(item, event.content_index, part, now + PROGRESS_S)
            return
        self._outputs.append(TextReceived(event.item_id, event.content_index, delta))
        self._progress(event.item_id, event.content_index, part, now)

    def _bounded(self, text: str, before: int = 0) -> str:
        """As much of a text as a part may have."""
        if before + len(text) <= MAX_TEXT_CHARS:
            return text
        self._note(Note.DROPPED, "text")
        return text[: max(0, MAX_TEXT_CHARS - before)]

    def _progress(self, item_id: str, content_index: int, part: Part, now: float) -> None:
        if part.written_at is not None and now < part.written_at + PROGRESS_S:
            return
        self._fact(
            "item_progressed",
            fact_pb2.ItemProgressed(
                item_id=item_id,
                content_index=content_index,
                text_offset=part.written_chars,
                text=part.text[part.written_chars :],
                audio_ms=part.received_ms,
            ),
        )
        part.written_at = now
        part.written_chars = len(part.text)

    def _audio_done(self, event: events.AudioDone) -> None:
        response = self._responses.get(event.response_id)
        item = self._items.get(event.item_id)
        if response is not None and item is not None and event.content_index in item.parts:
            self._send_last(item, event.content_index)

    def _send_last(self, item: Item, content_index: int) -> None:
        part = item.parts[content_index]
        response = self._responses.get(item.response_id)
        stale = item.interrupted or (response is not None and response.interrupted)
        if part.sent and not part.last_sent and not part.settled and not stale:
            part.last_sent = True
            self._outputs.append(ToCaller(item.item_id, content_index, b"", last=True))

    def _transcript_done(self, event: events.TranscriptDone, now: float) -> None:
        found = self._text_part(event.response_id, event.item_id, event.content_index)
        if found is not None and event.transcript:
            item, part = found
            part.complete_text(self._bounded(event.transcript))
            self._text_came_late(item, event.content_index, part, now)

    def _item_done(self, item: events.Item, now: float) -> None:
        known = self._items.get(item.id)
        if known is None:
            return
        if not known.speech:
            self._function_done(known, item)
            response = self._responses.get(known.response_id)
            if response is not None and not response.interrupted and known.call.item_completed:
                self._call(known, response)
            return
        for content_index, content in enumerate((item.content or ())[:MAX_PARTS]):
            part = known.part(content_index)
            part.audible = content.is_audio or part.received_bytes > 0
            # The item's own text is whole, also when a delta was lost.
            part.complete_text(self._bounded(content.transcript or content.text or ""))
            self._text_came_late(known, content_index, part, now)
        if not known.done and item.status == "completed":
            self._item_over(known, fact_pb2.GENERATION_STATUS_COMPLETED)
        # Else: whether it was cancelled, cut off by a limit or failed is for the response to say.

    def _text_came_late(self, item: Item, content_index: int, part: Part, due: float) -> None:
        """Rule 6: when text came behind the last fact about a part, have that written again."""
        if item.status and len(part.text) > len(part.written_text):
            key = item.item_id, content_index
            self._late[key] = min(due, self._late.get(key, due))

    def _write_due(self, now: float) -> None:
        if self._late:
            for key in [key for key, due in self._late.items() if now >= due]:
                self._write_late(key)

    def _write_late(self, key: PartKey) -> None:
        del self._late[key]
        item_id, content_index = key
        item = self._items.get(item_id)
        part = item.parts.get(content_index) if item is not None else None
        if item is not None and part is not None and len(part.text) > len(part.written_text):
            self._write_generated(item, content_index, part)

    def _item_over(self, item: Item, status: fact_pb2.GenerationStatus.ValueType) -> None:
        """No more of an item will be generated."""
        completed = status == fact_pb2.GENERATION_STATUS_COMPLETED
        if completed and any(part.short for part in item.parts.values()):
            status, completed = fact_pb2.GENERATION_STATUS_INCOMPLETE, False
        item.done = True
        item.completed = completed
        item.status = status
        if not item.speech:
            item.call.decided = True
            return
        self._announce(item, self._last_item_id)
        if not item.parts:
            item.part(0)
        for content_index, part in sorted(item.parts.items()):
            self._send_last(item, content_index)
            if part.generated:
                continue
            self._write_generated(item, content_index, part)
            if part.position_ms is not None and not part.settled:
                self._cut(item, content_index, part)

    def _write_generated(self, item: Item, content_index: int, part: Part) -> None:
        part.generated = True
        part.written_text = part.text
        self._fact(
            "item_generated",
            fact_pb2.ItemGenerated(
                item_id=item.item_id,
                content_index=content_index,
                text=part.text,
                audio_ms=part.received_ms,
                status=item.status,
            ),
        )
        self._outputs.append(PartGenerated(item.item_id, content_index, part.text, item.completed))

    def _response_done(self, done: events.Response, now: float) -> None:
        status = done.status or "incomplete"  # of one that says nothing, nothing is claimed
        self._note(Note.RESPONSE, status if status in _GENERATION_STATUS else "other")
        self._count_usage(done.usage)
        response_id = done.id
        if not response_id and len(self._responses) == 1:
            response_id = next(iter(self._responses))  # which one could not be read
        if not response_id:
            self._note(Note.MALFORMED_EVENT, "response.done")
            return
        first = response_id not in self._ended
        for output in (done.output or ())[:MAX_ITEMS_A_RESPONSE]:
            known = self._agent_item(output, response_id) if first else None
            if known is not None and not known.speech:
                self._function_done(known, output)  # the response's own status decides
            else:
                self._item_done(output, now)
        if not first:
            return
        response = self._responses.get(response_id) or Response(response_id)
        cancelled_unasked = status == "cancelled" and not response.interrupted
        if cancelled_unasked and not self._responses.keys() - {response_id}:
            # Cancelled for speech that began before its first sign: its audio is out already.
            response.interrupted = True
            self._responses.pop(response_id, None)
            self._interrupt(None, now)
        self._decide_calls(response, done.status)
        generation = _GENERATION_STATUS.get(status, fact_pb2.GENERATION_STATUS_FAILED)
        self._response_over(response, generation)
        self._greeted = self._greeted or status != "failed"
        if status == "failed":
            self._note(Note.ERROR, f"response_{counted_code(done.reason)}")
            if is_fatal_code(done.reason):
                self._outputs.append(Fatal(f"response failed: {done.reason}"))
        self._replies.done(
            failed=status == "failed",
            greeting=None if self._greeted else greeting_instructions(self._agent),
            now=now,
        )
        self._answer_tools(response, now)
        self._forget()

    def _response_over(
        self, response: Response, status: fact_pb2.GenerationStatus.ValueType
    ) -> None:
        """No more of a response will be generated."""
        self._responses.pop(response.response_id, None)
        _remember(self._ended, response.response_id)
        response.done = True
        for item_id in response.items:
            item = self._items.get(item_id)
            if item is None:
                continue
            item.interrupted = response.interrupted
            if not item.done:
                self._item_over(item, status)
            if response.interrupted and not self._closing:
                self._delete_unheard(item)

    # --- what was heard --------------------------------------------------------------------

    def _settle(self, item: Item, content_index: int, part: Part, heard_ms: int) -> None:
        """It is known how much was heard; ask for word times where they decide something.

        Heard to the end of the audio is heard in full only if the model said all it wanted:
        text of a cancelled item runs past its audio.
        """
        if not part.settled:
            self._held_bytes -= part.received_bytes
        part.settled = True
        if heard_ms > 0 and (heard_ms < part.received_ms or not item.completed):
            self._outputs.append(PartCut(item.item_id, content_index, part.text))
        else:
            self._outputs.append(PartPlayed(item.item_id, content_index))

    def _cut(self, item: Item, content_index: int, part: Part) -> None:
        """Decide about a part whose position is known, as far as that is possible now (rule 3)."""
        position_ms = part.position_ms
        if part.settled or item.removed or position_ms is None:
            return
        if position_ms <= 0 and not item.heard:
            if item.done and item.response_id not in self._responses:
                self._delete(item)
            return
        if position_ms >= part.received_ms:
            # All that came was played. What still comes, or the end of the item, decides.
            if item.done:
                self._settle(item, content_index, part, position_ms)
            return
        self._settle(item, content_index, part, position_ms)
        if not self._closing:  # else no next turn will need a truncated item
            self._send(
                self._cuts.truncate(self._next_event_id(), item.item_id, content_index, position_ms)
            )
            self._outputs.extend(self._cuts.overdue())

    def _delete_unheard(self, item: Item) -> None:
        """Delete an item of an interrupted response, now over, unless it was or may be heard."""
        if not item.speech or item.removed or item.heard:
            return
        parts = item.parts.values()
        if any(part.sent and part.position_ms is None for part in parts):
            return  # perhaps it is being heard; the positions will tell
        with_sound = [part for part in parts if part.audible]
        if any(part.settled for part in with_sound):
            return
        if not with_sound and any(part.text for part in parts):
            return  # it was never meant for the ear
        self._delete(item)

    def _delete(self, item: Item) -> None:
        item.removed = True
        for content_index, part in item.parts.items():
            self._settle(item, content_index, part, 0)
        if not self._closing:
            self._send(self._cuts.delete(self._next_event_id(), item.item_id))
            self._outputs.extend(self._cuts.overdue())

    # --- functions -------------------------------------------------------------------------

    def _arguments_done(self, event: events.ArgumentsDone) -> None:
        """All arguments are there, or all that there will be: the item's end says which."""
        if self._response(event.response_id) is None:
            return
        item = self._agent_item(
            events.Item(
                event.item_id, type="function_call", name=event.name, call_id=event.call_id
            ),
            event.response_id,
        )
        if item is not None:
            item.call.arguments = event.arguments or item.call.arguments
            item.call.arguments_done = True

    def _function_done(self, item: Item, said: events.Item) -> None:
        """An item that is a function call has ended: take in what is said of it."""
        call = item.call
        call.call_id = said.call_id or call.call_id
        call.name = said.name or call.name
        call.arguments = said.arguments or call.arguments
        call.item_completed |= said.status == "completed"
        call.broken_off |= said.status == "incomplete"

    def _decide_calls(self, response: Response, status: str | None) -> None:
        """Rule 7: the response is over, so no call of it is left undecided."""
        for item_id in response.items:
            item = self._items.get(item_id)
            if item is None or item.speech:
                continue
            call = item.call
            complete = call.item_completed or (call.arguments_done and not call.broken_off)
            if status == "completed" and complete:
                self._call(item, response)
            else:
                self._refuse_call(item, _INTERRUPTED if response.interrupted else _BROKEN_OFF)

    def _call(self, item: Item, response: Response) -> None:
        call = item.call
        call_id = call.call_id
        if call.decided or call_id is None or call_id in self._called or self._closing:
            return
        if len(call.arguments) > MAX_ARGUMENTS_CHARS or len(self._tool_call_responses) >= MAX_CALLS:
            self._note(Note.DROPPED, "function_call")
            too_long = len(call.arguments) > MAX_ARGUMENTS_CHARS
            self._refuse_call(item, _TOO_LONG if too_long else _TOO_MANY)
            response.called_tools = True  # it has been answered, and may be spoken about
            return
        call.decided = True
        _remember(self._called, call_id)
        self._announce(item, item.previous or self._last_item_id)
        self._stand_in.pop(item.item_id, None)
        response.tool_calls.add(call_id)
        response.called_tools = True
        self._tool_call_responses[call_id] = response
        name = call.name or ""
        self._fact(
            "tool_called",
            fact_pb2.ToolCalled(
                item_id=item.item_id, tool_call_id=call_id, name=name, arguments=call.arguments
            ),
        )
        self._outputs.append(CallTool(call_id, name, call.arguments))

    def _refuse_call(self, item: Item, why: str) -> None:
        """Carry out nothing, and tell the model so."""
        call_id = item.call.call_id
        if item.call.decided:
            return
        item.call.decided = True
        self._note(Note.CALL_NOT_MADE)
        if call_id is None or call_id in self._called or self._closing:
            return
        _remember(self._called, call_id)
        self._tell_result(call_id, f'{{"error": "{why}"}}')

    def _tell_result(self, call_id: str, output: str) -> None:
        self._send(
            events.CreateItem(
                event_id=self._next_event_id(),
                item={"type": "function_call_output", "call_id": call_id, "output": output},
            )
        )

    def _answer_tools(self, response: Response, now: float) -> None:
        """Let the model speak about results once the response is over and all are there."""
        if response.done and response.called_tools and not response.tool_calls:
            response.called_tools = False
            self._replies.owe(Owed.RESULTS, at=now)

    # --- the rest --------------------------------------------------------------------------

    def _error(self, detail: events.ErrorDetail) -> None:
        self._note(Note.ERROR, counted_code(detail.code))
        grave = severity(detail)
        event_id = detail.event_id
        if grave is Severity.FATAL:
            self._outputs.append(Fatal(f"the model reported {detail.code}"))
            return
        if not self._configured and event_id in (self._update_id, None):
            self._outputs.append(
                Fatal(
                    "the model refused session.update: "
                    f"{without_secrets(str(detail.param or detail.code or 'error'))}: "
                    f"{without_secrets(detail.message or '')}"
                )
            )
            return
        if event_id is not None:
            self._replies.refused(event_id)
        if event_id is not None and event_id == self._commit_id:
            self._commit_id = None
        self._outputs.extend(self._cuts.refused(detail))

    def _rate_limits(self, event: events.RateLimitsUpdated) -> None:
        for limit in event.rate_limits[:MAX_PARTS]:
            if limit.limit and limit.limit > 0 and limit.remaining is not None:
                name = limit.name if limit.name in ("requests", "tokens") else "other"
                remaining = min(max(0.0, limit.remaining), limit.limit)
                self._note(Note.RATE_LIMIT, name, int(1000 * (remaining / limit.limit)))

    def _count_usage(self, usage: events.Usage | None) -> None:
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
                    amount = min(max(0, tokens or 0), _MAX_TOKENS)
                    self._note(Note.TOKENS, f"{direction}_{kind}", amount)

    def _ask(self, now: float) -> None:
        """Let the model speak if that is due."""
        if self._replies.state is not State.OWED:
            return
        request = self._replies.next(
            f"r{self._events_sent + 1}", responding=self.responding, now=now
        )
        if request is not None:
            self._events_sent += 1
            self._send(request)

    def _start_facts(self, session_id: str) -> None:
        """Write the first fact, once."""
        if self._session_id is None:
            self._session_id = session_id
            self._fact(
                "session_started",
                fact_pb2.SessionStarted(
                    session_id=session_id, model=self._model, language=self._agent.language
                ),
            )

    def _forget(self) -> None:
        """Keep what a late event may still be about, and no more."""
        if len(self._items) <= _REMEMBERED_ITEMS:
            return
        for item in list(self._items.values()):
            if item.settled and item.response_id not in self._responses:
                self._forget_item(item)
                if len(self._items) <= _REMEMBERED_ITEMS:
                    return

    def _forget_item(self, item: Item) -> None:
        for content_index, part in item.parts.items():
            if (item.item_id, content_index) in self._late:
                self._write_late((item.item_id, content_index))
            if not part.settled:
                self._settle(item, content_index, part, 0)
        del self._items[item.item_id]

    def _next_event_id(self) -> str:
        self._events_sent += 1
        return f"e{self._events_sent}"

    def _send(self, event: events.ClientEvent) -> None:
        self._outputs.append(ToModel(event))

    def _fact(self, name: str, body: Message) -> None:
        self._outputs.append(WriteFact(name, body))
        self._facts_written += 1
        self._fact_bytes += body.ByteSize()
        if self._facts_written == MAX_FACTS or (
            self._fact_bytes >= MAX_FACT_BYTES > self._fact_bytes - body.ByteSize()
        ):
            self._outputs.append(Fatal("the model says more than any conversation is long"))

    def _note(self, note: Note, label: str = "", amount: int = 1) -> None:
        self._outputs.append(Noted(note, label, amount))


def _remember(known: dict[str, None], value: str) -> None:
    """Keep the newest of what is remembered only by name."""
    known[value] = None
    if len(known) > MAX_REMEMBERED:
        del known[next(iter(known))]
