"""Drives a conversation as the live API and a gateway would, and sorts what it wants done."""

from __future__ import annotations

import base64
import json
from typing import Any, TypeVar

from google.protobuf.message import Message

from asheard.v1 import fact_pb2, session_service_pb2, transcript_pb2
from session.agent import Agent, parse_agent
from session.notices import NO_NOTICES, Notice, NoticeBook
from session.realtime import codec, events
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import (
    CallTool,
    Fatal,
    Interrupt,
    Note,
    Noted,
    Output,
    ToCaller,
    ToModel,
    WriteFact,
)

T = TypeVar("T")

AGENT = parse_agent("name: x\ninstructions: Be brief.\n", name="inline")
GREETER = parse_agent("name: x\ninstructions: Be brief.\ngreeting: Say hello.\n", name="inline")


class Talk:
    """One conversation, its inputs and everything it has put out."""

    def __init__(self, agent: Agent = AGENT, notices: NoticeBook = NO_NOTICES) -> None:
        self.clock = InputClock()
        self.conversation = Conversation(agent, "gpt-test", self.clock, notices=notices, tag="t")
        self.now = 100.0
        self.outputs: list[Output] = []
        self.conversation.open()
        self.take()
        self.server("session.created", session={"id": "sess_1"})
        self.server("session.updated", session={"id": "sess_1"})

    # --- inputs -----------------------------------------------------------------------------

    def server(self, kind: str, **body: Any) -> None:
        """The model says something."""
        event = codec.decode(json.dumps({"type": kind, "event_id": "event_x", **body}))
        self.conversation.receive(event, now=self.now)
        self.take()

    def caller_audio(self, ms: int, *, media_ms: int = 0) -> None:
        """The caller's audio, silent or not, in frames of 20 ms."""
        for at in range(0, ms, 20):
            self.clock.receive(160, media_ms + at, 1_000 * (media_ms + at), now=self.now)

    def later(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        due = self.conversation.next_timer()
        if due is not None and due <= self.now:
            self.conversation.timer(now=self.now)
            self.take()

    def wait(self, seconds: float) -> None:
        """Time passes, and the shell wakes the conversation whenever it asks for that."""
        end = self.now + seconds
        woken = 0
        while (due := self.conversation.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.conversation.timer(now=self.now)
            self.take()
            woken += 1
            assert woken < 1000, "it wakes itself without an end"
        self.now = end

    def response(self, response_id: str) -> None:
        """A response begins."""
        self.server("response.created", response={"id": response_id, "status": "in_progress"})

    def item(self, response_id: str, item_id: str, *, previous: str | None = None) -> None:
        """A response begins a message."""
        item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress"}
        self.server("response.output_item.added", response_id=response_id, item=item)
        self.server("conversation.item.added", previous_item_id=previous, item=item)
        self.server(
            "response.content_part.added",
            response_id=response_id,
            item_id=item_id,
            content_index=0,
            part={"type": "audio", "transcript": ""},
        )

    def audio(self, response_id: str, item_id: str, ms: int, *, content_index: int = 0) -> None:
        """A piece of audio."""
        self.server(
            "response.output_audio.delta",
            response_id=response_id,
            item_id=item_id,
            content_index=content_index,
            delta=base64.b64encode(b"\x55" * (8 * ms)).decode(),
        )

    def text(self, response_id: str, item_id: str, text: str) -> None:
        """A piece of transcript."""
        self.server(
            "response.output_audio_transcript.delta",
            response_id=response_id,
            item_id=item_id,
            content_index=0,
            delta=text,
        )

    def item_done(
        self, response_id: str, item_id: str, text: str, *, status: str = "completed"
    ) -> None:
        """A message ends, in the recorded order of events."""
        part = {"response_id": response_id, "item_id": item_id, "content_index": 0}
        self.server("response.output_audio.done", **part)
        self.server("response.output_audio_transcript.done", transcript=text, **part)
        self.server("response.content_part.done", part={"type": "audio"}, **part)
        item = {
            "id": item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [{"type": "output_audio", "transcript": text}],
        }
        self.server("conversation.item.done", item=item)
        self.server("response.output_item.done", response_id=response_id, item=item)

    def response_done(
        self, response_id: str, status: str = "completed", details: object = None
    ) -> None:
        """A response ends."""
        self.server(
            "response.done",
            response={"id": response_id, "status": status, "status_details": details},
        )

    def say(self, response_id: str, item_id: str, text: str, ms: int) -> None:
        """A whole response of one message."""
        self.response(response_id)
        self.item(response_id, item_id)
        self.text(response_id, item_id, text)
        self.audio(response_id, item_id, ms)
        self.item_done(response_id, item_id, text)
        self.response_done(response_id)

    def result_added(self, call_id: str) -> None:
        """The server says that a function's result joined the conversation."""
        item = {"id": f"O_{call_id}", "type": "function_call_output", "call_id": call_id}
        self.server("conversation.item.added", item=item)

    def caller_speaks(self, item_id: str = "U", audio_start_ms: int = 0) -> None:
        """Voice detection hears the caller."""
        self.server(
            "input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=audio_start_ms
        )

    def caller_stops(self, item_id: str = "U", audio_end_ms: int = 1000) -> None:
        """Voice detection hears the caller's end, and the item joins the conversation."""
        self.server("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=audio_end_ms)
        self.server("input_audio_buffer.committed", item_id=item_id)
        self.server(
            "conversation.item.added",
            item={
                "id": item_id,
                "type": "message",
                "role": "user",
                "content": [{"type": "input_audio"}],
            },
        )

    def positions(
        self,
        *heard: tuple[str, int],
        interrupt_id: int = 0,
        cause: fact_pb2.PositionCause.ValueType = fact_pb2.POSITION_CAUSE_CLEARED,
        content_index: int = 0,
    ) -> None:
        """The gateway's word on items: how many milliseconds were heard."""
        self.conversation.positions_fixed(
            session_service_pb2.PositionsFixed(
                interrupt_id=interrupt_id,
                cause=cause,
                positions=[
                    transcript_pb2.ItemPosition(
                        item_id=item_id,
                        content_index=content_index,
                        low_ms=ms,
                        best_ms=ms,
                        high_ms=ms,
                    )
                    for item_id, ms in heard
                ],
            )
        )
        self.take()

    def words_timed(self, item_id: str, *words: tuple[int, int, int], refined: bool = True) -> None:
        """Words of an item were timed: where each begins and ends in the text, and its end in ms."""
        source = transcript_pb2.WordTimesSource(method="aligned", refined=refined)
        timed = [
            fact_pb2.TimedWord(text_start=start, text_end=end, end_ms=end_ms)
            for start, end, end_ms in words
        ]
        self.conversation.words_timed(
            fact_pb2.WordsTimed(item_id=item_id, source=source, words=timed)
        )

    def played(self, *items: tuple[str, int]) -> None:
        """The gateway says that items were played to their end."""
        self.positions(*items, cause=fact_pb2.POSITION_CAUSE_PLAYED)

    def tool_returned(self, call_id: str, output: str) -> None:
        """A function has answered."""
        self.conversation.tool_returned(call_id, output, now=self.now)
        self.take()

    def notice(self, notice: Notice) -> float:
        """A sentence is said without the model."""
        length_s = self.conversation.say(notice)
        self.take()
        return length_s

    def hang_up(self) -> None:
        """The media stream is over."""
        self.conversation.caller_left(now=self.now)
        self.take()

    def finish(self, *, failed: bool) -> None:
        """The socket is closed."""
        self.conversation.finish(failed=failed)
        self.take()

    def end(self, reason: str, *, failed: bool) -> None:
        """The session is over."""
        self.conversation.ended(reason, failed=failed)
        self.take()

    def take(self) -> None:
        """Collect what is to be done."""
        self.outputs += self.conversation.take()

    # --- outputs ----------------------------------------------------------------------------

    def of(self, kind: type[T]) -> list[T]:
        """All outputs of a kind so far."""
        return [output for output in self.outputs if isinstance(output, kind)]

    @property
    def responding(self) -> bool:
        """A response is under way."""
        return bool(self.conversation._memory.responses)

    def waiting(self) -> bool:
        """Words of the caller are still to be transcribed."""
        return self.conversation.waiting_for_caller

    @property
    def sent(self) -> list[events.ClientEvent]:
        """Events for the model, without the session's configuration."""
        return [
            output.event
            for output in self.of(ToModel)
            if not isinstance(output.event, events.UpdateSession)
        ]

    @property
    def truncations(self) -> list[tuple[str, int]]:
        """What the model was told to truncate, and where."""
        return [
            (event.item_id, event.audio_end_ms)
            for event in self.sent
            if isinstance(event, events.TruncateItem)
        ]

    @property
    def deletions(self) -> list[str]:
        """What the model was told to delete."""
        return [event.item_id for event in self.sent if isinstance(event, events.DeleteItem)]

    @property
    def requests(self) -> list[events.CreateResponse]:
        """Responses that were asked for."""
        return [event for event in self.sent if isinstance(event, events.CreateResponse)]

    @property
    def interrupts(self) -> list[Interrupt]:
        """Playback was interrupted so often."""
        return self.of(Interrupt)

    @property
    def to_caller(self) -> list[tuple[str, int]]:
        """Audio given to the gateway: item and milliseconds, 0 for the end of a part."""
        return [(o.item_id, len(base64.b64decode(o.payload)) // 8) for o in self.of(ToCaller)]

    @property
    def tool_calls(self) -> list[CallTool]:
        """Functions that were called."""
        return self.of(CallTool)

    @property
    def fatal(self) -> list[str]:
        """Why the session cannot go on."""
        return [output.reason for output in self.of(Fatal)]

    def facts(self, name: str) -> list[Any]:
        """Facts of a kind."""
        return [fact.body for fact in self.of(WriteFact) if fact.name == name]

    def all_facts(self) -> list[tuple[str, Message]]:
        """All facts, in order."""
        return [(fact.name, fact.body) for fact in self.of(WriteFact)]

    def noted(self, note: Note, label: str = "") -> int:
        """How often something was counted."""
        return sum(
            output.amount
            for output in self.of(Noted)
            if output.note is note and (not label or output.label == label)
        )
