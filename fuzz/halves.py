"""Both halves of ``native`` on odd frames and payloads: one answer, whatever comes, and never more than
the general decoder takes.

Where the compiled half was not built, Python's is held against the decoders alone.
"""

from __future__ import annotations

import base64
import importlib
import json
from random import Random
from types import TracebackType
from typing import Any

import pybase64

from fuzz import mutate
from fuzz.harness import Broken
from gateway.twilio.messages import LATEST_MS, Media, decode
from native import _python

STREAM = b"MZ0123456789abcdef0123456789abcdef"

FRAMES = 10
"""In one case."""

_MAX_CONTENT_BYTES = 65_535
"""What the two bytes of a length can say."""

_FIRST_BYTES = (0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x01, 0x80, 0x82, 0x88, 0x89, 0x8A, 0xC1, 0xF1)

_BITS = (
    b'"', b"\\", b",", b":", b"{", b"}", b" ", b"\0", b"\x7f", b"\xff", b"=", b'":"', b'","', b'"},"',
    b'"media"', b'"event":"media",', b'"track":"inbound",', b',"chunk":"1"', b'"timestamp":"0",', b"null",
)  # fmt: skip


class Halves:
    """The target."""

    def __init__(self) -> None:
        self._halves: list[Any] = [_python]

    def __enter__(self) -> Halves:
        try:
            self._halves.append(importlib.import_module("native._speedups"))
        except ImportError:
            pass  # not built
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def case(self, random: Random) -> int:
        """What a socket gives, frame by frame and all at once, and payloads."""
        frames = [_frame(random) for _ in range(FRAMES)]
        for data in (*frames, b"".join(frames)):
            self._frames(mutate.mutated_bytes(random, data) if random.random() < 0.2 else data)
            self._payload(_payload(random))
        return 2 * FRAMES + 2

    def _same(self, function: str, *arguments: bytes) -> Any:
        """The answer of both halves.

        Raises:
            Broken: They have two.
        """
        answers = [getattr(half, function)(*arguments) for half in self._halves]
        if answers.count(answers[0]) != len(answers):
            raise Broken(f"{function} has two answers to {arguments!r:.2000}: {answers!r:.2000}")
        return answers[0]

    def _frames(self, data: bytes) -> None:
        self._same("read_text", data)
        begin = 0
        for timestamp_ms, payload, audio_bytes, end in self._same("read_media", data, STREAM):
            content, length = self._same("read_text", data[begin:])
            if begin + length != end:
                raise Broken(f"a media message ends at {end}, its frame at {begin + length}")
            begin = end
            message = decode(content)
            if not isinstance(message, Media):
                raise Broken(f"no media message to the decoder: {message}")
            media = message.media
            if (message.stream_sid.encode(), media.track, media.timestamp, media.payload.encode()) != (
                STREAM, "inbound", timestamp_ms, payload,
            ):  # fmt: skip
                raise Broken(f"another message to the decoder: {message}")
            proved = self._payload(payload)
            if proved is not None and proved != audio_bytes:
                raise Broken(f"{audio_bytes} bytes of audio, {proved} when decoded")

    def _payload(self, payload: bytes) -> int | None:
        """The bytes of audio that both halves and pybase64 find in it."""
        expected = None
        try:
            written = b'{"type":"input_audio_buffer.append","audio":"%b"}' % payload
            expected = written, len(pybase64.b64decode(payload, None, True))
        except ValueError:
            pass
        answer = self._same("append_message", payload)
        if answer != expected:
            raise Broken(f"base64 to one and not to the other: {payload!r:.500}")
        return None if expected is None else expected[1]


def _frame(random: Random) -> bytes:
    """A client's frame, as a rule a whole one of text."""
    content = _content(random)[:_MAX_CONTENT_BYTES]
    mask = random.randbytes(4) if random.random() < 0.8 else bytes(4)
    size = len(content)
    pad = int.from_bytes((mask * (size // 4 + 1))[:size])
    masked = (int.from_bytes(content) ^ pad).to_bytes(size)
    first = random.choice(_FIRST_BYTES)
    if len(content) < 126 and random.random() < 0.9:
        return bytes((first, 0x80 | len(content))) + mask + masked
    return bytes((first, 0xFE)) + len(content).to_bytes(2, "big") + mask + masked


def _content(random: Random) -> bytes:
    """What is nearly a media message, and often one."""
    details = {
        "track": "inbound",
        "chunk": "2",
        "timestamp": random.choice(
            ("0", "20", "86400000", f"{LATEST_MS - 1}", f"{LATEST_MS}", "020", "-1")
        ),
        "payload": _payload(random).decode("latin-1"),
    }
    fields = {"event": "media", "sequenceNumber": "3", "streamSid": STREAM.decode()}
    message = _object(
        random, _items(random, fields) + [("media", _object(random, _items(random, details)))]
    )
    kind = random.randrange(10)
    if kind == 0:
        return mutate.mutated_bytes(random, message)
    if kind < 4:
        at = random.randrange(len(message) + 1)
        return message[:at] + random.choice(_BITS) + message[at + random.randrange(3) :]
    return message


def _items(random: Random, good: dict[str, str]) -> list[tuple[str, bytes]]:
    """The fields as JSON; now and then one is left out, doubled, or odd."""
    items = [(name, json.dumps(value).encode()) for name, value in good.items()]
    place = random.randrange(len(items))
    match random.randrange(20):
        case 0:
            del items[place]
        case 1:
            items.append(items[place])
        case 2:
            items[place] = (items[place][0], json.dumps(mutate.value(random)).encode()[:30_000])
    return items


def _object(random: Random, items: list[tuple[str, bytes]]) -> bytes:
    if random.random() < 0.3:
        random.shuffle(items)
    return b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in items) + b"}"


def _payload(random: Random) -> bytes:
    """Base64, or nearly."""
    sizes = (0, 1, 2, 3, 159, 160, 160, 160, 160, 160, 161, 800, 16_002, 16_003)
    payload = base64.b64encode(random.randbytes(random.choice(sizes)))
    if random.random() < 0.7:
        return payload
    at = random.randrange(len(payload) + 1)
    odd = random.choice(
        (b"=", b"==", b"A", b"\n", b"-", b"_", b" ", b"\xff", b"\0", b"AAAA", b'"', b"\\")
    )
    return payload[:at] + odd + payload[at + random.randrange(3) :]
