"""The model's side of a session: responses, from ``response.created`` to ``response.done``. Pure.

What happens between is in ``output_items.py``. ``rate_limits.updated`` follows ``response.done``, as
recorded (protocol notes B.5). An interrupted response still sends a few deltas, then closes its
items as ``incomplete``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from simulators.realtime import generation
from simulators.realtime.conversation import Conversation
from simulators.realtime.errors import ClientError
from simulators.realtime.mishaps import SPEECHLESS, Mishaps
from simulators.realtime.outbox import Outbox
from simulators.realtime.output_items import OutputItems, Response
from simulators.realtime.replies import Replies
from simulators.realtime.script import AgentScript, Drop, Reply
from simulators.realtime.session_config import Settings
from simulators.realtime.session_truth import FaultPlayed, Generation, SessionTruth
from simulators.realtime.usage import rate_limits, status_details, usage
from simulators.realtime.wire import Event
from simulators.speech.g711 import BYTES_PER_MS

Asked = Literal["client", "turn", "idle"]
"""What a response answers."""


class Responses:
    """Generates the responses of one session."""

    def __init__(
        self,
        script: AgentScript,
        settings: Settings,
        outbox: Outbox,
        conversation: Conversation,
        replies: Replies,
        mishaps: Mishaps,
        truth: SessionTruth,
        *,
        drop: Callable[[Drop], None],
        over: Callable[[int], None],
    ) -> None:
        """Begin with none.

        Args:
            script: Times and faults.
            settings: The session's, as they are at any time.
            outbox: Where events go.
            conversation: Where output becomes items.
            replies: What to say next.
            mishaps: What goes wrong.
            truth: Where the facts are kept.
            drop: Called when a reply's scripted loss of the connection is reached.
            over: Called at the end of a response, with the ms of audio in it.
        """
        self.no_requests_before_ms = 0
        """Age of the session until which ``rate_limits.updated`` said that nothing is left."""
        self._script = script
        self._settings = settings
        self._outbox = outbox
        self._conversation = conversation
        self._replies = replies
        self._mishaps = mishaps
        self._truth = truth
        self._drop = drop
        self._over = over
        self._items = OutputItems(settings, outbox, conversation, truth)
        self._responses: list[Response] = []
        self._conversation_id = outbox.new_id("conv")

    # --- what the client and the caller do -----------------------------------------------------

    def create(self, options: Event, asked: Asked) -> str:
        """Begin a response; its id.

        Args:
            options: ``response`` of the client's event, checked; empty for a turn's own response.
            asked: What it answers.

        Raises:
            ClientError: Another response holds the conversation.
        """
        in_conversation = options.get("conversation", "auto") == "auto"
        active = self._holding_conversation()
        if in_conversation and active:
            raise ClientError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {active[0].id}. "
                "Wait until the response is finished before creating a new one.",
            )
        response_id = self._outbox.new_id("resp")
        reply = self._next_reply(response_id, options.get("instructions", ""))
        modalities = options.get("output_modalities", self._settings.output_modalities)
        output = {**self._settings.output, **options.get("audio", {}).get("output", {})}
        limit = options.get("max_output_tokens", self._settings.max_output_tokens)
        speaks = modalities == ["audio"] and not reply.text_only
        wire: Event = {
            "object": "realtime.response",
            "id": response_id,
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": self._conversation_id if in_conversation else None,
            "output_modalities": modalities,
            "max_output_tokens": limit,
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
            "usage": None,
            "metadata": options.get("metadata"),
        }
        began_ms = self._outbox.now_ms
        truth = Generation(response_id, began_ms, asked, self._conversation.known_results())
        self._truth.generations.append(truth)
        steps = deque(generation.plan(reply, self._script, audio=speaks))
        audio_format = output["format"]["type"]
        self._responses.append(
            Response(wire, reply, truth, audio_format, speaks, in_conversation, steps)
        )
        self._outbox.watch(response_id, reply.events)
        self._outbox.emit("response.created", response=wire)
        if reply.rate_limits is not None and reply.rate_limits.at == "created":
            self._say_limits(0, reply)
        return response_id

    def _next_reply(self, response_id: str, instructions: str) -> Reply:
        reply = self._replies.take_next(instructions)
        spoiled, drawn = self._mishaps.of_reply(reply)
        if drawn in SPEECHLESS:
            self._replies.give_back(reply)
        wrong = reply.failure or reply.text_only or reply.events or reply.rate_limits
        what = drawn or ("spoiled" if wrong else None)
        if what is not None:
            self._truth.faults.append(FaultPlayed(self._outbox.now_ms, what, response_id))
        return spoiled

    def cancel(self, response_id: str | None) -> None:
        """Cancel a response for the client.

        Raises:
            ClientError: None is active, or not that one.
        """
        for response in self._responses:
            if response.cancelled is None and response_id in (None, response.id):
                self._stop(response, "client_cancelled")
                return
        raise ClientError(
            "response_cancel_not_active", "Cancellation failed: no active response found"
        )

    def interrupt(self) -> None:
        """Cancel what is being generated because the caller speaks."""
        for response in self._holding_conversation():
            self._stop(response, "turn_detected")

    def _holding_conversation(self) -> list[Response]:
        return [r for r in self._responses if r.in_conversation and r.cancelled is None]

    def _stop(self, response: Response, reason: str) -> None:
        """Drop what was planned, but for some deltas that are on their way already."""
        response.cancelled = reason
        response.cancel_done_ms = self._outbox.now_ms + self._script.cancel_ms
        age_ms = self._outbox.now_ms - response.truth.began_ms
        audio = [s for s in response.steps if s.kind == "audio" and s.part in response.outputs]
        response.steps = deque(
            generation.Step(age_ms, s.kind, s.part, s.text, s.start_byte, s.end_byte)
            for s in audio[: self._script.stragglers]
        )

    # --- time ----------------------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """When the next step is due; None while nothing is generated."""
        return min((response.due_ms for response in self._responses), default=None)

    def run_first_step(self) -> None:
        """Do what is due first."""
        response = min(self._responses, key=lambda r: r.due_ms)
        if not response.steps:
            self._finish(response, "cancelled", response.cancelled)
            return
        step = response.steps.popleft()
        match step.kind:
            case "open":
                self._items.open(response, step.part)
            case "text":
                self._items.text(response, response.outputs[step.part], step.text)
            case "audio":
                self._items.audio(response, response.outputs[step.part], step)
            case "arguments":
                self._items.arguments(response, response.outputs[step.part], step.text)
            case "close":
                self._items.close(response, response.outputs[step.part], "completed")
            case "fail":
                failure = response.reply.failure
                if failure is None:
                    raise AssertionError("a plan fails only where its reply says so")
                self._finish(response, failure.status, failure.code)
            case "drop":
                if response.reply.drop is not None:
                    self._drop(response.reply.drop)
            case "done":
                self._finish(response, "completed", None)

    # --- the end of a response -----------------------------------------------------------------

    def _finish(self, response: Response, status: str, reason: str | None) -> None:
        for output in response.outputs.values():
            self._items.close(
                response, output, "completed" if status == "completed" else "incomplete"
            )
        self._responses.remove(response)
        ordered = sorted(response.outputs.values(), key=lambda output: output.index)
        audio_ms = sum(
            output.item.truth.generated_ms
            for output in response.outputs.values()
            if output.item.truth is not None
        )
        cost = self._usage(response, audio_ms)
        response.wire |= {
            "status": status,
            "status_details": status_details(status, reason, response.reply),
            "output": [output.item.wire for output in ordered],
            "usage": cost,
        }
        self._truth.responses.append((response.id, status, reason))
        truth = response.truth
        truth.done_ms, truth.status, truth.reason = self._outbox.now_ms, status, reason
        self._outbox.emit("response.done", response=response.wire)
        self._say_limits(cost["total_tokens"], response.reply)
        self._over(audio_ms)

    def _say_limits(self, total_tokens: int, reply: Reply) -> None:
        scripted = reply.rate_limits
        if scripted is not None and not scripted.remaining:
            self.no_requests_before_ms = self._outbox.now_ms + int(scripted.reset_s * 1000)
        self._outbox.emit("rate_limits.updated", rate_limits=rate_limits(total_tokens, scripted))

    def _usage(self, response: Response, audio_ms: int) -> Event:
        audio_in = sum(
            len(item.input_audio) // (100 * BYTES_PER_MS) for item in self._conversation.items
        )
        return usage(
            audio_out_ms=audio_ms,
            text_out=response.text_tokens,
            audio_in=audio_in,
            text_in=len(generation.tokens(self._settings.instructions)),
        )
