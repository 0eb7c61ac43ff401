"""Calls in which nothing is wrong, beside the one in which something is: are they whole?"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from asheard.v1 import transcript_pb2
from bench.faults.model import ModelSession, ScriptedModel
from bench.faults.phone import Phone
from bench.faults.stage import Stage, must, new_call_sid, seconds_until

LAST_WORDS_S = 10.0
"""How long an answer may take to be heard to its end."""

LAST_FRAMES_S = 5.0
"""How long the last frames may be under way."""


class Neighbours:
    """Some well-behaved calls of :func:`bench.faults.model.converse`."""

    def __init__(self, stage: Stage, model: ScriptedModel, phones: Sequence[Phone]) -> None:
        self.phones = list(phones)
        self._stage = stage
        self._model = model
        model.phones |= {phone.tag: phone for phone in phones}
        self._talking = [asyncio.create_task(phone.frames(1_000_000)) for phone in phones]

    def session(self, phone: Phone) -> ModelSession | None:
        """Its session at the model."""
        return self._model.session(phone.tag)

    async def have_talked(self, frames: int = 30) -> None:
        """Wait until each has come through to the model."""
        await must(
            lambda: all(
                (session := self.session(phone)) is not None and len(session.frames) >= frames
                for phone in self.phones
            ),
            "the neighbours' calls are connected",
        )

    async def whole(self, within_s: float = 60.0) -> float:
        """Hang up once all is said; how many of the calls are whole: every frame at the model, in
        order, and every word in a final transcript."""
        self._model.paused = True
        sessions = [self.session(phone) for phone in self.phones]
        await seconds_until(
            lambda: all(session is not None and session.all_heard for session in sessions),
            LAST_WORDS_S,
        )
        # And the marks after the last words have been echoed.
        sent = [phone.sent + 5 for phone in self.phones]
        await seconds_until(
            lambda: all(p.sent >= n for p, n in zip(self.phones, sent, strict=True)), LAST_WORDS_S
        )
        for task in self._talking:
            task.cancel()
        await asyncio.gather(*self._talking, return_exceptions=True)
        await asyncio.gather(*(phone.stop() for phone in self.phones))
        await seconds_until(lambda: all(map(self._all_frames, self.phones)), LAST_FRAMES_S)
        finals = await self._stage.finals([phone.call_sid for phone in self.phones], within_s)
        return sum(
            self._all_frames(phone) and self._all_words(phone, finals.get(phone.call_sid))
            for phone in self.phones
        )

    async def close(self) -> None:
        """End everything."""
        for task in self._talking:
            task.cancel()
        await asyncio.gather(*self._talking, return_exceptions=True)
        await asyncio.gather(*(phone.close() for phone in self.phones))

    def delay_ms(self, since_s: float, share: float = 0.99) -> float:
        """So much of their frames, sent after a time by the monotonic clock, took at most so long to
        the model; one that never came counts as under way until now."""
        now_s = time.monotonic()
        delays: list[float] = []
        for phone in self.phones:
            session = self.session(phone)
            came = dict(zip(session.frames, session.came_at_s, strict=False)) if session else {}
            delays += [
                came.get(number, now_s) - sent_s
                for number, sent_s in enumerate(phone.sent_at_s)
                if sent_s >= since_s
            ]
        delays.sort()
        return (
            round(1000 * delays[max(0, math.ceil(share * len(delays)) - 1)], 1) if delays else 0.0
        )

    def _all_frames(self, phone: Phone) -> bool:
        session = self.session(phone)
        return session is not None and session.frames == list(range(phone.sent))

    def _all_words(self, phone: Phone, transcript: transcript_pb2.Transcript | None) -> bool:
        session = self.session(phone)
        if transcript is None or session is None:
            return False
        told = [(turn.role, turn.heard_text) for turn in transcript.turns]
        agent = [text for role, text in told if role == transcript_pb2.ROLE_AGENT]
        caller = [text for role, text in told if role == transcript_pb2.ROLE_CALLER]
        return (
            transcript.state == transcript_pb2.CALL_STATE_COMPLETED
            and caller == session.heard
            and agent == session.said
        )


@asynccontextmanager
async def neighbours(
    stage: Stage, model: ScriptedModel, count: int = 5
) -> AsyncIterator[Neighbours]:
    """Have some well-behaved callers call, and wait until each is connected."""
    phones = [
        Phone(stage.media_url(), new_call_sid(), f"n{number}") for number in range(1, count + 1)
    ]
    for phone in phones:
        await phone.open()
    made = Neighbours(stage, model, phones)
    try:
        await made.have_talked()
        yield made
    finally:
        await made.close()
