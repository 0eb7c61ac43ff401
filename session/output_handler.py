"""Carries out what one call's conversation wants done, and decides nothing about it.

Audio and interrupts go to the gateway, events to the model, facts to the transcript service; words
are timed, and what happens is counted. Functions and a fatal error, which decide about the call's
life, are :mod:`session.call`'s.
"""

from __future__ import annotations

import time

from structlog.typing import FilteringBoundLogger

from asheard.v1 import session_service_pb2
from runtime.facts import FactWriter
from session.latency import TurnLatency
from session.metrics import SessionMetrics
from session.outbox import Outlet, OutletFull
from session.realtime import codec, faults
from session.realtime.connection import RealtimeConnection
from session.realtime.outputs import (
    AudioReceived,
    CallerStopped,
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
from session.words import CallWords


class OutputHandler:
    """Of one call.

    Args:
        outlet: To its gateway.
        writer: Of its facts.
        words: Times the agent's words.
        latency: Times the turns.
        metrics: Of the worker.
        log: Of the call.
    """

    def __init__(
        self,
        *,
        outlet: Outlet,
        writer: FactWriter,
        words: CallWords,
        latency: TurnLatency,
        metrics: SessionMetrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._outlet = outlet
        self._writer = writer
        self._words = words
        self._latency = latency
        self._metrics = metrics
        self._log = log
        self._warned: set[tuple[str, str]] = set()
        self.connection: RealtimeConnection | None = None
        """To the model. None: not open yet, or over; what is for the model is dropped."""
        self.audible = True
        """Whether the caller can hear anything; what is for it is dropped when not."""
        self.end_is_written = False
        """Whether the last fact of the call is written."""

    def do(self, output: Output) -> None:
        """Carry out one output.

        Raises:
            OutletFull: The gateway takes nothing: the call is to end.
            Exception: A bug, or something that no message can hold: the same.
        """
        # What each delta makes comes first, by its exact type: a pattern that a struct does not match
        # takes five times as long.
        if type(output) is ToCaller:
            self._to_caller(output)
        elif type(output) is AudioReceived:
            self._words.audio(output.item_id, output.content_index, output.payload)
        elif type(output) is TextReceived:
            self._words.text(output.item_id, output.content_index, output.delta)
        else:
            self._do_seldom(output)

    def _do_seldom(self, output: Output) -> None:
        match output:
            case WriteFact(name, body):
                self._writer.write(**{name: body})
                self.end_is_written |= name == "session_ended"
            case ToModel(event):
                if self.connection is not None:
                    self.connection.send(codec.encode(event))
            case Interrupt():
                self._interrupt(output)
            case CallerStopped(end_buffer_ms):
                self._latency.speech_stopped(end_buffer_ms)
            case PartCut(item_id, content_index, text):
                self._words.cut(item_id, content_index, text)
            case PartGenerated(item_id, content_index, text, complete):
                self._words.generated(item_id, content_index, text, complete=complete)
            case PartPlayed(item_id, content_index):
                self._words.played(item_id, content_index)
            case Noted():
                self._count(output)

    def _to_caller(self, audio: ToCaller) -> None:
        if not self.audible:
            return
        try:
            self._outlet.audio(audio.item_id, audio.content_index, audio.payload, audio.last)
        except OutletFull:
            self.audible = False  # what follows would be at the wrong place
            raise
        if audio.payload and self._latency.unanswered and not audio.notice:
            waited_s = self._latency.answered(time.time_ns() // 1000)
            if waited_s is not None:
                self._metrics.first_audio.observe(waited_s)

    def _interrupt(self, interrupt: Interrupt) -> None:
        now_unix_us = time.time_ns() // 1000
        onset = self._latency.onset(
            interrupt.onset_buffer_ms, now_unix_us=now_unix_us, now=time.perf_counter()
        )
        self._outlet.interrupt(
            session_service_pb2.Interrupt(
                interrupt_id=interrupt.interrupt_id,
                onset_ms=onset.media_ms,
                detection_us=onset.detection_us,
                worker_us=onset.worker_us,
                sent_unix_us=now_unix_us,
            )
        )

    def _count(self, noted: Noted) -> None:
        self._metrics.note(noted)
        match noted.note:
            case Note.ERROR if not faults.is_benign_code(noted.label):
                self._warn_once("the model reported an error", code=noted.label)
            case Note.MALFORMED_EVENT:
                self._warn_once("the model sent an event that cannot be read", type=noted.label)
            case Note.INCOMPLETE:
                self._warn_once("the model ended a response before its end", reason=noted.label)
            case Note.DROPPED:
                self._warn_once("the model sent more than is taken", what=noted.label)
            case Note.SETTING_DIFFERS:
                self._warn_once("the model has another setting than told", setting=noted.label)
            case Note.POSITIONS_LATE:
                self._log.warning("positions of a barge-in are late")

    def _warn_once(self, message: str, **label: str) -> None:
        """One line a call for each label: a model may repeat itself a thousand times."""
        (value,) = label.values()
        if (message, value) not in self._warned:
            self._warned.add((message, value))
            self._log.warning(message, **label)
