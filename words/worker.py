"""One worker process of the pool: ``python -m words.worker``, started by :mod:`words.pool`.

It reads messages from standard input and writes messages to standard output; it ends when its input
does. Between two looks at its input it does one small piece of work, and items that wait for their
last answer come first: a barge-in never waits for more than a few milliseconds of other calls' work.
"""

from __future__ import annotations

import os
import select
import signal
import sys

# Before NumPy is loaded: its threads would only take the cores from the calls.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

from words import wire  # noqa: E402 - after the settings above, which NumPy reads once
from words.aligner.item import ItemAligner  # noqa: E402

_READ_BYTES = 1 << 20
_PIECE_FRAMES = 50
"""Frames searched between two looks at the input: a few milliseconds."""

_TELL_EVERY_MS, _TELL_IDLE_MS = 2000, 1000
"""New audio after which the pool is told how far an item is, for its estimates: while there is more
to search, and when there is not."""


class _Item:
    """An item and what was said about it."""

    def __init__(self, language: str) -> None:
        self.aligner = ItemAligner(language)
        self.told_ms = 0
        self.idle = True


class Worker:
    """The items of this process. Messages in, messages out; no input or output of its own."""

    def __init__(self) -> None:
        self._items: dict[int, _Item] = {}
        self._finishing: dict[int, bool] = {}
        self.to_send: list[wire.FromWorker] = []

    @property
    def idle(self) -> bool:
        """Nothing to do until more comes in."""
        return not self._finishing and all(item.idle for item in self._items.values())

    def receive(self, message: wire.ToWorker) -> None:
        """Take in one message; the work is done later, by :meth:`work`."""
        if isinstance(message, wire.Open):
            self._items[message.item] = _Item(message.language)
            return
        item = self._items.get(message.item)
        if item is None:
            return
        try:
            match message:
                case wire.Audio():
                    item.aligner.add_audio(message.ulaw)
                    item.idle = False
                case wire.Text():
                    item.aligner.add_text(message.delta)
                    item.idle = False
                case wire.Finish():
                    self._finishing[message.item] = message.complete
                case wire.Close():
                    self._forget(message.item)
        except Exception as error:
            self._fail(message.item, error)

    def work(self) -> None:
        """Do one piece of work: a last answer if one is due, or a little of one item."""
        if self._finishing:
            number, complete = next(iter(self._finishing.items()))
            try:
                times = self._items[number].aligner.finish(complete)
            except Exception as error:
                self._fail(number, error)
                return
            self.to_send.append(wire.Times.of(number, times, final=True))
            self._forget(number)
            return
        for number, item in list(self._items.items()):
            if item.idle:
                continue
            try:
                item.idle = not item.aligner.work(_PIECE_FRAMES)
                self._tell(number, item)
            except Exception as error:
                self._fail(number, error)
            # To the end of the line: items take turns.
            if number in self._items:
                self._items[number] = self._items.pop(number)
            return

    def _tell(self, number: int, item: _Item) -> None:
        searched_ms = item.aligner.searched_ms
        if searched_ms - item.told_ms >= (_TELL_IDLE_MS if item.idle else _TELL_EVERY_MS):
            item.told_ms = searched_ms
            self.to_send.append(wire.Times.of(number, item.aligner.estimate(), final=False))

    def _fail(self, number: int, error: Exception) -> None:
        self._forget(number)
        self.to_send.append(wire.Failed(number, type(error).__name__))

    def _forget(self, number: int) -> None:
        self._items.pop(number, None)
        self._finishing.pop(number, None)


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our input
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    warm_up()
    worker, framer = Worker(), wire.Framer()
    _write(sink, wire.encode(wire.Ready()))
    while True:
        readable, _, _ = select.select([source], [], [], None if worker.idle else 0)
        if readable:
            data = os.read(source, _READ_BYTES)
            if not data:
                return
            for message in framer.feed(data):
                worker.receive(wire.decode_to_worker(message))
            if len(data) == _READ_BYTES:
                continue  # there is more: know all before choosing what comes first
        if not worker.idle:
            worker.work()
        for answer in worker.to_send:
            _write(sink, wire.encode(answer))
        worker.to_send.clear()


def warm_up() -> None:
    """Load the model and the dictionary, and go through the code once."""
    aligner = ItemAligner("en")
    aligner.add_text("hello there. ")
    aligner.add_audio(b"\xff\x7f" * 8000)
    aligner.finish(complete=True)


def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


if __name__ == "__main__":
    main()
