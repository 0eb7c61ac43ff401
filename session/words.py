"""Word times of what one call's agent said, as far as they decide anything.

Where the caller cut in, a transcript needs to know which words lie before the cut. So for a cut
part there are two answers, each a fact: an estimate at once, from what has been received, and a
refined one when all of its text and audio are there. If they are there at the cut, as a rule, the
refined one is a matter of some 30 ms, and the estimate is made only when it is not.

What was played to its end needs no answer, unless ``ASHEARD_ALIGN=all`` asks for it: then each part
is followed while it is generated, the estimate is aligned too, and the refined answer costs the
same for a part of 3 s and one of 30 s.

Audio is kept as the base64 that came, and decoded only for a part that needs it. Text may come
after a part's words were timed: then they are timed once more, while its audio is still remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import pybase64

from asheard.v1 import fact_pb2, transcript_pb2
from runtime.log import get_log
from words.proportional import ProportionalSource, proportional_times
from words.timing import Speech, WordTimes
from words.tokenize import tokenize

log = get_log(__name__)

Write = Callable[[fact_pb2.WordsTimed], None]
"""Where answers go."""

Refine = Callable[[Speech], Awaitable[WordTimes | None]]
"""The better method, off the event loop. None: it has no answer in time, the estimate stands."""


class Followed(Protocol):
    """A part that an aligner follows; see :class:`words.pool.PooledItem`. Nothing waits but
    ``finish``."""

    def add_audio(self, ulaw: bytes) -> None: ...
    def add_text(self, delta: str) -> None: ...
    def estimate(self) -> WordTimes: ...
    async def finish(self, *, complete: bool) -> WordTimes | None: ...
    def close(self) -> None: ...


Follow = Callable[[str], Followed | None]
"""Begins to follow a part in a language. None: there is no room, it is refined as a whole later."""

MAX_TIMED_WORDS = 10_000
"""Of a part: an hour of quick speech, and 180 KB of facts. Of more nothing is said; a transcript
then takes the words for spread over the audio in proportion."""

_ESTIMATED_WITH_PAUSES_BYTES = 20 * 8000
"""Looking for pauses costs 1.5 ms for 17 s of audio on the event loop; longer parts are estimated
without, and refined off it as all others."""


ESTIMATE_AFTER_S = 0.2
"""How long a refined answer under way may take before an estimate fills in: facts reach a reader in
a quarter of a second, so within it nobody sees the difference."""


_REMEMBERED_PARTS = 4
"""Timed parts whose audio is kept for text that comes late: it comes within a second or two."""

_REMEMBERED_BYTES = 60 * 8000 * 4 // 3
"""Base64 of the longest such part, a minute: what more is kept is not worth what it takes."""

_Key = tuple[str, int]
"""Item id and content index."""


@dataclass(slots=True)
class _Part:
    pieces: list[bytes] = field(default_factory=list)
    cut: bool = False
    played: bool = False
    text: str | None = None
    """None until all of it is there."""
    complete: bool = False
    followed: Followed | None = None
    followed_text: str = ""
    """What the follower was told; a final text that differs makes its work useless."""
    answering: asyncio.Task[None] | None = None
    """Its refined answer under way, or over."""

    def ulaw(self) -> bytes:
        return b"".join(pybase64.b64decode(piece) for piece in self.pieces)


class CallWords:
    """Times the words of one call; fed with a conversation's outputs.

    Args:
        language: BCP 47; of what the agent speaks.
        align: ``cut``, ``all`` or ``off``, as ``ASHEARD_ALIGN``.
        refine: The better method.
        write: Gets estimates, some during :meth:`cut`, and refined answers later.
        count: Is told what became of each refined answer: ``refined``, ``none``, ``failed``.
        follow: Follows parts while they are generated, when ``align`` is ``all``.
    """

    def __init__(
        self,
        *,
        language: str,
        align: str,
        refine: Refine,
        write: Write,
        count: Callable[[str], None],
        follow: Follow | None = None,
    ) -> None:
        self._language = language
        self._align = align
        self._refine = refine
        self._write = write
        self._count = count
        self._follow = follow if align == "all" else None
        self._parts: dict[_Key, _Part] = {}
        self._timed: dict[_Key, _Part] = {}
        """Parts that were timed, the newest."""
        self._refining: set[asyncio.Task[None]] = set()
        self._owed: dict[_Key, Speech] = {}
        """Estimates that are written when the refined answer takes long."""
        self._closed = False

    def audio(self, item_id: str, content_index: int, payload: bytes) -> None:
        """Audio of a part came, base64 of µ-law at 8 kHz."""
        if self._align == "off":
            return
        part = self._part(item_id, content_index)
        part.pieces.append(payload)
        if part.followed is not None:
            part.followed.add_audio(pybase64.b64decode(payload))

    def text(self, item_id: str, content_index: int, delta: str) -> None:
        """A piece of a part's text came; only parts that are followed need it."""
        if self._follow is None:
            return
        part = self._part(item_id, content_index)
        part.followed_text += delta
        if part.followed is not None:
            part.followed.add_text(delta)

    def _part(self, item_id: str, content_index: int) -> _Part:
        part = self._parts.get((item_id, content_index))
        if part is None:
            part = self._parts[item_id, content_index] = _Part()
            if self._follow is not None:
                part.followed = self._follow(self._language)
        return part

    def cut(self, item_id: str, content_index: int, text: str) -> None:
        """The caller heard a part of it: estimate now, or soon if the refined answer is near.

        Args:
            item_id: The item.
            content_index: The part.
            text: What was received of its text so far.
        """
        part = self._parts.get((item_id, content_index))
        if part is None or part.cut:
            return
        part.cut = True
        refined_soon = part.text is not None and part.followed is None
        if not refined_soon:
            self._fact(item_id, content_index, self._estimate(part, text), refined=False)
        self._when_ready(item_id, content_index, part, estimate=refined_soon)

    def generated(self, item_id: str, content_index: int, text: str, *, complete: bool) -> None:
        """All text and audio of a part are there; called again when more text came late."""
        part = self._parts.get((item_id, content_index))
        if part is None:
            part = self._timed.pop((item_id, content_index), None)
            if part is None or part.text == text:
                return
            # What was found for less text must not come after what is found for more.
            if part.answering is not None:
                part.answering.cancel()
            part.followed_text = ""
            self._parts[item_id, content_index] = part
        part.text = text
        part.complete = complete
        self._when_ready(item_id, content_index, part)

    def played(self, item_id: str, content_index: int) -> None:
        """Nothing about its words needs to be found out."""
        part = self._parts.get((item_id, content_index))
        if part is None or part.cut:
            return
        part.played = True
        if self._align == "cut":
            del self._parts[item_id, content_index]

    def position_unknown(self) -> None:
        """Nobody will say how much of the parts that are left was heard: the gateway is gone.

        The transcript counts what was proven to be played, and needs to know which words that is.
        """
        for (item_id, content_index), part in list(self._parts.items()):
            if not part.cut and not part.played:
                part.cut = True
                self._when_ready(item_id, content_index, part)

    async def drain(self, deadline_s: float) -> bool:
        """Wait for answers under way; False when ``deadline_s`` passed and some are lost."""
        self._follow_no_more()
        if not self._refining:
            return True
        _, late = await asyncio.wait(self._refining, timeout=deadline_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._write_owed()
        return not late

    def close(self) -> None:
        """Write what is owed and give up what is under way: nothing is written after this."""
        try:
            self._write_owed()
            self._follow_no_more()
        finally:
            self._closed = True
            self._owed.clear()
            self._parts.clear()
            self._timed.clear()
            for task in self._refining:
                task.cancel()

    def _write_owed(self) -> None:
        while self._owed:
            (item_id, content_index), speech = self._owed.popitem()
            self._fact(item_id, content_index, _estimate(speech), refined=False)

    def _follow_no_more(self) -> None:
        for part in self._parts.values():
            followed, part.followed = part.followed, None
            if followed is not None:
                followed.close()

    def _when_ready(
        self, item_id: str, content_index: int, part: _Part, *, estimate: bool = False
    ) -> None:
        """Refine when all is there; ``estimate`` says that an estimate is still owed."""
        if part.text is None or not (part.cut or self._align == "all"):
            return
        del self._parts[item_id, content_index]
        speech = Speech(part.text, part.ulaw(), self._language, part.complete)
        followed, part.followed = part.followed, None
        if followed is not None and part.followed_text != part.text:
            followed.close()
            followed = None
        if estimate:
            self._owed[item_id, content_index] = speech
        task = asyncio.create_task(
            self._answer(item_id, content_index, speech, followed), name=f"words of {item_id}"
        )
        if followed is not None:
            # A call may end before the task begins, and then nobody else lets go of the item.
            task.add_done_callback(partial(_give_up_if_cancelled, followed))
        part.answering = task
        self._refining.add(task)
        task.add_done_callback(self._refining.discard)
        self._remember(item_id, content_index, part)

    def _remember(self, item_id: str, content_index: int, part: _Part) -> None:
        if sum(map(len, part.pieces)) <= _REMEMBERED_BYTES:
            self._timed[item_id, content_index] = part
            if len(self._timed) > _REMEMBERED_PARTS:
                del self._timed[next(iter(self._timed))]

    async def _answer(
        self, item_id: str, content_index: int, speech: Speech, followed: Followed | None
    ) -> None:
        """Write the refined answer, and before it the estimate that is owed if it takes long."""
        refined: asyncio.Future[WordTimes | None] | None = None
        try:
            refined = asyncio.ensure_future(
                self._refine(speech)
                if followed is None
                else followed.finish(complete=speech.complete)
            )
            if (item_id, content_index) in self._owed:
                await asyncio.wait({refined}, timeout=ESTIMATE_AFTER_S)
                owed = self._owed.pop((item_id, content_index), None)
                late = not refined.done() or refined.exception() or refined.result() is None
                if owed is not None and late:
                    self._fact(item_id, content_index, _estimate(owed), refined=False)
            times = await refined
        except Exception as error:
            # The estimate stands, and says so; a call does not end for its word times.
            log.error("word times failed", item=item_id, exc_info=error)
            self._count("failed")
            return
        finally:
            if refined is not None:
                refined.cancel()
        self._count("none" if times is None else "refined")
        if times is not None:
            self._fact(item_id, content_index, times, refined=True)

    def _estimate(self, part: _Part, text: str) -> WordTimes:
        """What can be said within a few milliseconds."""
        if part.followed is not None:
            return part.followed.estimate()
        complete = part.text is not None and part.complete
        return _estimate(
            Speech(text if part.text is None else part.text, part.ulaw(), self._language, complete)
        )

    def _fact(self, item_id: str, content_index: int, times: WordTimes, *, refined: bool) -> None:
        if len(times.words) > MAX_TIMED_WORDS:
            return
        if self._closed:
            return
        self._write(
            fact_pb2.WordsTimed(
                item_id=item_id,
                content_index=content_index,
                source=transcript_pb2.WordTimesSource(
                    method=times.method.value,
                    version=times.version,
                    confidence=times.confidence,
                    refined=refined,
                ),
                audio_ms=times.audio_ms,
                words=[
                    fact_pb2.TimedWord(
                        text_start=word.char_start,
                        text_end=word.char_end,
                        start_ms=word.start_ms,
                        end_ms=word.end_ms,
                    )
                    for word in times.words
                ],
            )
        )


def _estimate(speech: Speech) -> WordTimes:
    if len(speech.ulaw) <= _ESTIMATED_WITH_PAUSES_BYTES:
        return ProportionalSource().word_times(speech)
    return proportional_times(
        tokenize(speech.text), len(speech.ulaw) // 8, complete=speech.complete
    )


def _give_up_if_cancelled(followed: Followed, task: asyncio.Task[None]) -> None:
    if task.cancelled():
        followed.close()
