"""What the pool and its worker processes say to each other over a pair of pipes.

Each message is MessagePack after its length in four bytes, big end first. Items are numbered by the
pool; a worker forgets an item when it has finished or closed it, and what still comes for a forgotten
item is dropped.
"""

from __future__ import annotations

import struct

import msgspec

from words.timing import Method, WordTime, WordTimes

_LENGTH = struct.Struct(">I")

MAX_MESSAGE_BYTES = 64 << 20
"""Nothing sane is longer; a length beyond means that the pipe lost step."""


class Open(msgspec.Struct, tag=True, array_like=True):
    """A new item."""

    item: int
    language: str


class Audio(msgspec.Struct, tag=True, array_like=True):
    """More audio of an item: mono µ-law at 8 kHz."""

    item: int
    ulaw: bytes


class Text(msgspec.Struct, tag=True, array_like=True):
    """More text of an item."""

    item: int
    delta: str


class Finish(msgspec.Struct, tag=True, array_like=True):
    """No more will come; answer with ``Times``, then forget the item."""

    item: int
    complete: bool


class Close(msgspec.Struct, tag=True, array_like=True):
    """Forget the item."""

    item: int


class Ready(msgspec.Struct, tag=True, array_like=True):
    """The worker has loaded the model."""


class Times(msgspec.Struct, tag=True, array_like=True):
    """Word times of an item: on the way, or its last."""

    item: int
    final: bool
    method: str
    version: str
    confidence: float
    audio_ms: int
    words: list[tuple[str, int, int, int, int]]

    @staticmethod
    def of(item: int, times: WordTimes, *, final: bool) -> Times:
        """Pack word times."""
        words = [(w.text, w.char_start, w.char_end, w.start_ms, w.end_ms) for w in times.words]
        return Times(
            item, final, times.method, times.version, times.confidence, times.audio_ms, words
        )

    def word_times(self) -> WordTimes:
        """Unpack word times."""
        words = tuple(WordTime(*word) for word in self.words)
        return WordTimes(Method(self.method), self.version, self.confidence, self.audio_ms, words)


class Failed(msgspec.Struct, tag=True, array_like=True):
    """The item could not be aligned; it is forgotten."""

    item: int
    reason: str
    """Kind of error, never any of the text."""


ToWorker = Open | Audio | Text | Finish | Close
FromWorker = Ready | Times | Failed

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """Length and message."""
    data = _encoder.encode(message)
    return _LENGTH.pack(len(data)) + data


class Framer:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; return the messages they completed.

        Raises:
            ValueError: A length that no message has: the stream cannot be trusted any more.
        """
        self._buffer += data
        messages: list[bytes] = []
        place = 0
        while len(self._buffer) - place >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, place)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"message of {length} bytes: the pipe is out of step")
            end = place + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(bytes(self._buffer[place + _LENGTH.size : end]))
            place = end
        del self._buffer[:place]
        return messages


def decode_to_worker(data: bytes) -> ToWorker:
    """Decode what the pool said."""
    message: ToWorker = _to_worker.decode(data)
    return message


def decode_from_worker(data: bytes) -> FromWorker:
    """Decode what a worker said."""
    message: FromWorker = _from_worker.decode(data)
    return message
