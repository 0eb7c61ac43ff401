"""Alignment in a bounded pool of worker processes: off the event loop, out of the calls' way.

Rules:

1. A call never waits. Adding audio or text writes to a pipe and returns; the estimate is computed here
   from what the worker last said; only the refined answer is awaited, with a deadline.
2. The pool is bounded: so many workers, so many items on each, so many bytes on their way. When it is
   full, :meth:`AlignerPool.open` says so at once, and the estimate stands.
3. A worker that dies takes its items' refined answers with it and nothing else. It is replaced, with
   growing pauses if it dies again. What it was working on is not tried again: it may be the reason.

    pool = AlignerPool(workers=1)
    await pool.start()                      # loads the model, before the first call
    item = pool.open("en")                  # None: full
    item.add_text("Your total"); item.add_audio(ulaw)
    item.estimate()                         # at once
    await item.finish(complete=False)       # refined; None: failed, late, or lost
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import Sequence

from runtime.backoff import Backoff
from runtime.log import get_log
from runtime.units import BYTES_PER_MS
from words import wire
from words.proportional import USUAL_MS_PER_WEIGHT, proportional_times, weight
from words.timing import Speech, WordTime, WordTimes
from words.tokenize import TextJoiner, Token

log = get_log(__name__)

MAX_ITEMS = 64
"""Items open on one worker: at 4 ms of work for a second of audio it could follow some 250 that speak
in real time; a model speaks several times faster than that."""

MAX_BYTES_WAITING = 8 << 20
"""Bytes written to a worker that it has not read: some 17 minutes of audio. It is stuck, then."""

DEADLINE_S = 1.0
"""Whoever watches a call is to have the refined answer within a second of the cut."""

_START_DEADLINE_S = 30.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.25, 30.0
"""Before a dead worker is replaced; doubled each time it dies before it answered anything."""


class PooledItem:
    """One item of agent speech that a worker follows. Get it from :meth:`AlignerPool.open`."""

    def __init__(self, number: int, language: str, worker: _WorkerProcess) -> None:
        self.number = number
        self.answer: asyncio.Future[WordTimes | None] = asyncio.get_running_loop().create_future()
        self.latest: WordTimes | None = None
        self._worker = worker
        self._joiner = TextJoiner()
        self._audio_bytes = 0
        self._send(wire.Open(number, language))

    def add_audio(self, ulaw: bytes) -> None:
        """Add mono µ-law at 8 kHz; returns at once."""
        self._audio_bytes += len(ulaw)
        self._send(wire.Audio(self.number, ulaw))

    def add_text(self, delta: str) -> None:
        """Add a transcript delta; returns at once."""
        if delta:
            self._joiner.add(delta)
            self._send(wire.Text(self.number, delta))

    @property
    def text(self) -> str:
        """All text added so far."""
        return self._joiner.text

    def estimate(self) -> WordTimes:
        """Best word times known right now, in well under a millisecond: nothing is awaited."""
        tokens = (*self._joiner.settled, *self._joiner.unsettled())
        audio_ms = self._audio_bytes // BYTES_PER_MS
        if self.latest is None:
            return proportional_times(tokens, audio_ms, complete=False)
        return extended(self.latest, tokens, audio_ms)

    async def finish(self, *, complete: bool, deadline_s: float = DEADLINE_S) -> WordTimes | None:
        """Return the refined answer, or None when there is none in time: the estimate stands.

        Safe to cancel. Nothing may be added afterwards.
        """
        self._send(wire.Finish(self.number, complete))
        try:
            async with asyncio.timeout(deadline_s):
                times = await asyncio.shield(self.answer)
        except TimeoutError:
            times = None
        finally:
            self._worker.closed(self)
        return times

    def close(self) -> None:
        """Give the item up: no answer is wanted."""
        self._send(wire.Close(self.number))
        self._worker.closed(self)

    def _send(self, message: wire.ToWorker) -> None:
        if not self.answer.done() and not self._worker.send(message):
            self.lost()

    def lost(self) -> None:
        """The worker is gone or stuck: there will be no answer."""
        if not self.answer.done():
            self.answer.set_result(None)


class AlignerPool:
    """Worker processes that align; one for each event loop that needs one."""

    def __init__(self, *, workers: int = 1, max_items: int = MAX_ITEMS) -> None:
        """Describe the pool; :meth:`start` starts it.

        Args:
            workers: Processes. One follows the agents of some hundred calls.
            max_items: Items open at a time on each.

        Raises:
            ValueError: A number below 1.
        """
        if workers < 1 or max_items < 1:
            raise ValueError(
                f"workers and max_items must be 1 or more, got {workers} and {max_items}"
            )
        self._workers = [_WorkerProcess(max_items) for _ in range(workers)]
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """Start all workers and wait until their model is loaded.

        Raises:
            RuntimeError: A worker did not come up.
        """
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def close(self) -> None:
        """Stop all workers; answers not yet there become None. Can be called twice."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    @property
    def processes(self) -> tuple[int, ...]:
        """Process ids of the workers alive, for measurements."""
        return tuple(w.pid for w in self._workers if w.pid is not None)

    def open(self, language: str) -> PooledItem | None:
        """Begin an item on the worker with the fewest; None: the pool is full, at once."""
        free = [worker for worker in self._workers if worker.accepts]
        if not free:
            return None
        return min(free, key=lambda worker: len(worker.items)).open(next(self._numbers), language)

    async def refine(self, speech: Speech, *, deadline_s: float = DEADLINE_S) -> WordTimes | None:
        """Align a whole item that nobody followed; None: full, failed or late."""
        item = self.open(speech.language)
        if item is None:
            return None
        item.add_text(speech.text)
        item.add_audio(speech.ulaw)
        return await item.finish(complete=speech.complete, deadline_s=deadline_s)


def extended(known: WordTimes, tokens: Sequence[Token], audio_ms: int) -> WordTimes:
    """Carry word times on to words and audio that came after them, at a usual rate of speech."""
    same = 0
    for word, token in zip(known.words, tokens, strict=False):
        if word.char_start != token.char_start or word.char_end != token.char_end:
            break
        same += 1
    words = list(known.words[:same])
    at_ms = words[-1].end_ms if words else 0
    for token in tokens[same:]:
        end_ms = at_ms + round(weight(token.text) * USUAL_MS_PER_WEIGHT)
        words.append(WordTime(token.text, token.char_start, token.char_end, at_ms, end_ms))
        at_ms = end_ms
    return WordTimes(known.method, known.version, known.confidence, audio_ms, tuple(words))


class _WorkerProcess:
    """One process: its pipes, its items, its replacement when it dies."""

    def __init__(self, max_items: int) -> None:
        self.items: dict[int, PooledItem] = {}
        self._max_items = max_items
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id; None while there is no process."""
        return self._process.pid if self._process is not None else None

    @property
    def accepts(self) -> bool:
        """Alive, loaded, and with room."""
        return self._ready.is_set() and len(self.items) < self._max_items

    def open(self, number: int, language: str) -> PooledItem:
        """Begin an item."""
        item = PooledItem(number, language, self)
        self.items[number] = item
        return item

    def closed(self, item: PooledItem) -> None:
        """The item is done with."""
        self.items.pop(item.number, None)

    def send(self, message: wire.ToWorker) -> bool:
        """Hand a message to the pipe; False when the worker is gone or stuck."""
        process = self._process
        if process is None or process.stdin is None or not self._ready.is_set():
            return False
        transport = process.stdin.transport
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_BYTES_WAITING:
            return False
        process.stdin.write(wire.encode(message))
        return True

    async def start(self) -> None:
        """Start the process and wait until it is ready."""
        if self._keeper is None:
            self._stopping = False
            self._keeper = asyncio.create_task(self._keep(), name="aligner worker")
        try:
            async with asyncio.timeout(_START_DEADLINE_S):
                await self._ready.wait()
        except TimeoutError:
            await self.stop()
            raise RuntimeError(
                f"the aligner's worker process was not ready within {_START_DEADLINE_S:.0f} s; "
                "its standard error says why"
            ) from None

    async def stop(self) -> None:
        """End the process and wait for it."""
        self._stopping = True
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper

    async def _keep(self) -> None:
        """Run the process, again and again."""
        backoff = Backoff(_FIRST_PAUSE_S, _MAX_PAUSE_S)
        while True:
            if await self._run():
                backoff.reset()
            pause_s = backoff.next_s()
            log.warning("aligner worker ended; starting another", pause_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)

    async def _run(self) -> bool:
        """Run one process to its end; whether it ever answered."""
        answered = False
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "words.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip
        self._process = process
        if process.stdout is None:
            raise AssertionError("its standard output is a pipe")
        framer = wire.Framer()
        try:
            while data := await process.stdout.read(1 << 20):
                for message in framer.feed(data):
                    answered |= self._receive(wire.decode_from_worker(message))
        except ValueError as error:
            log.error("aligner worker out of step", error=str(error))
        finally:
            self._ready.clear()
            self._process = None
            for item in list(self.items.values()):
                item.lost()
            self.items.clear()
            await _end(process)
        return answered

    def _receive(self, message: wire.FromWorker) -> bool:
        """Take in what the worker said; whether it was about an item."""
        if isinstance(message, wire.Ready):
            self._ready.set()
            return False
        item = self.items.get(message.item)
        if isinstance(message, wire.Failed):
            log.error("alignment failed", error=message.reason)
            if item is not None:
                item.lost()
        elif item is not None:
            if not message.final:
                item.latest = message.word_times()
            elif not item.answer.done():
                item.answer.set_result(message.word_times())
        return True


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the process's input and reap it; kill it if it does not go by itself."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(0.5):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
