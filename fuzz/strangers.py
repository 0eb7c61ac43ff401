"""The odd peers of a gateway: one connection after another, each a numbered case.

A process of its own, at low priority, so that what it costs is not taken for the gateway's fault.
Says the number of each case on standard output, as it begins.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from random import Random
from urllib.parse import quote

from fuzz import mutate

CASE_S = 1.0
"""The longest case, by the clock: an open socket that says nothing is for the gateway to end."""

CASE_BYTES = 4_000_000
"""And the largest: what one peer may send in one second."""

KEPT_OPEN = 20
"""Connections that are left open for a while when their case is over."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

_MARK = re.compile(rb'"mark":\{"name":"([^"]*)"')
_HEADERS = (
    "Host", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect",
    "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions",
    "X-Twilio-Signature", "X-Forwarded-Proto", "X-Forwarded-Host", "Cookie", "Authorization",
)  # fmt: skip
_VALUES = (
    "", "chunked", "gzip, chunked", "0", "-1", "5", "99999999999999999999", "1e3", "0x10", "upgrade",
    "Upgrade, keep-alive", "websocket", "WebSocket, h2c", "13", "8", "permessage-deflate",
    "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x",
    "multipart/form-data", "text/plain; charset=nonsense", "text/plain; charset=utf-16",
    "application/x-www-form-urlencoded; charset=\xff", "100-continue", "https", "javascript", "a" * 9_000,
)  # fmt: skip
_PATHS = (
    "/twilio/voice",
    "/twilio/status",
    "/twilio/media",
    "/twilio/media/",
    "/",
    "/metrics",
    "/x",
)
_PARAMETERS = (
    "CallSid", "From", "To", "CallStatus", "StreamEvent", "StreamSid", "StreamError", "attempt", "Digits",
)  # fmt: skip
_GOOD = {
    "CallSid": "CA1", "From": "+15550100", "To": "+15550199", "CallStatus": "in-progress",
    "StreamEvent": "stream-stopped", "StreamSid": "MZ1", "attempt": "1",
}  # fmt: skip


class Case:
    """One connection. It may be several requests, or a media stream."""

    def __init__(self, random: Random, port: int, number: int) -> None:
        self._random = random
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=CASE_S)
        self._socket.setblocking(False)
        self._deadline = time.monotonic() + CASE_S
        self._number = number
        self.received = bytearray()
        self.open = True
        self.inputs = 0
        self._left_bytes = CASE_BYTES

    def run(self) -> None:
        """Be odd."""
        match self._random.randrange(8):
            case 0 | 1:
                for _ in range(self._random.choice((1, 1, 3))):
                    self._send(self._http())
                self._listen(0.02)
            case 2 | 3:
                self._send(self._handshake(odd=self._random.random() < 0.5))
                self._listen(0.02)
                for piece in self._frames():
                    self._send(piece)
                    if not self.open:
                        break
            case _:
                self._send(self._handshake(odd=False))
                self._listen(0.1, until=b"\r\n\r\n")
                for message in self._messages():
                    self._send(message)
                    if not self.open or self._left_bytes < 0:
                        break
                self._listen(self._random.choice((0.0, 0.01, 0.1)))

    def end(self) -> socket.socket | None:
        """Leave in some way; the socket, when it is left open."""
        match self._random.randrange(5):
            case 0:
                linger = struct.pack("ii", 1, 0)  # a reset instead of an orderly end
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            case 1 if self.open:
                return self._socket
            case 2 if self.open:
                try:
                    self._socket.shutdown(socket.SHUT_WR)
                    self._listen(0.02)
                except OSError:
                    pass
        self._socket.close()
        return None

    # -- the socket ----------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        """Send it, in one piece or in several, and take in what comes meanwhile."""
        self.inputs += 1
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            return
        pieces = [data]
        if len(data) > 2 and self._random.random() < 0.2:
            place = self._random.randrange(1, len(data))
            pieces = [data[:place], data[place:]]
        for piece in pieces:
            view = memoryview(piece)
            while view and self.open and time.monotonic() < self._deadline:
                readable, writable, _ = select.select([self._socket], [self._socket], [], 0.1)
                if readable:
                    self._read()
                if writable and self.open:
                    try:
                        view = view[self._socket.send(view) :]
                    except BlockingIOError:
                        pass
                    except OSError:
                        self.open = False

    def _listen(self, seconds: float, until: bytes | None = None) -> None:
        end = min(time.monotonic() + seconds, self._deadline)
        while self.open and (left := end - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                self._read()
            if until is not None and until in self.received:
                return

    def _read(self) -> None:
        try:
            data = self._socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.open = bool(data)
        self.received += data
        del self.received[:-65_536]

    # -- HTTP ----------------------------------------------------------------------------------

    def _http(self) -> bytes:
        random = self._random
        parameters = dict(_GOOD)
        for _ in range(random.randrange(4)):
            parameters[random.choice(_PARAMETERS)] = mutate.text(random)
        form = "&".join(f"{name}={quote(value)}" for name, value in parameters.items()).encode()
        if random.random() < 0.3:
            form = mutate.mutated_bytes(random, form)
        path = random.choice(_PATHS)
        if random.random() < 0.3:
            path += "?" + quote(mutate.text(random), safe="=&?%/")
        method = random.choice(("POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "PRI", "P\0ST"))
        headers = {
            "Host": "127.0.0.1",
            "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": str(len(form)),
        }
        for _ in range(random.choice((0, 0, 1, 2, 4))):
            headers[random.choice(_HEADERS)] = random.choice(_VALUES)
        if random.random() < 0.05:
            headers |= {f"X-{number}": "a" * 500 for number in range(random.choice((50, 500)))}
        data = f"{method} {path} HTTP/1.1\r\n".encode("utf-8", "replace")
        data += b"".join(f"{k}: {v}\r\n".encode("latin-1") for k, v in headers.items())
        data += b"\r\n" + form
        match random.randrange(10):
            case 0:
                return data[: random.randrange(len(data))]
            case 1:
                return mutate.mutated_bytes(random, data)
            case 2:
                return data.replace(b"\r\n", random.choice((b"\n", b"\r", b"\r\n ")))
            case 3:
                return random.randbytes(random.choice((1, 100, 5_000)))
            case _:
                return data

    def _handshake(self, *, odd: bool) -> bytes:
        headers = {
            "Host": "127.0.0.1",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(self._random.randbytes(16)).decode(),
            "Sec-WebSocket-Version": "13",
        }
        if odd:
            name = self._random.choice((*headers, *_HEADERS))
            headers[name] = self._random.choice(_VALUES)
        lines = b"".join(
            f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items()
        )
        data = b"GET /twilio/media HTTP/1.1\r\n" + lines + b"\r\n"
        if odd and self._random.random() < 0.3:
            return mutate.mutated_bytes(self._random, data)
        return data

    # -- WebSocket frames ----------------------------------------------------------------------

    def _frames(self) -> Iterator[bytes]:
        random = self._random
        for _ in range(random.choice((1, 3, 30))):
            payload = random.choice(
                (
                    b"",
                    b"{}",
                    b'{"event":"connected"}',
                    random.randbytes(130),
                    b"\xff",
                    b"a" * 70_000,
                )
            )
            code = random.choice((0, 1, 1, 1, 2, 3, 7, 8, 9, 10, 15))
            if code == CLOSE:
                payload = random.choice(
                    (b"", b"\x03", b"\x03\xe8", b"\x03\xe8\xff", b"\0\0bye" * 60)
                )
            data = frame(
                random,
                code,
                payload,
                fin=random.random() < 0.8,
                reserved=random.choice((0, 0, 0, 0, 4, 7)),
                masked=random.random() < 0.9,
                length=random.choice(
                    (None, None, None, None, 0, 125, 2**16, 2**31, 2**63, 2**64 - 1)
                ),
            )
            yield mutate.mutated_bytes(random, data) if random.random() < 0.1 else data

    # -- Twilio's messages -----------------------------------------------------------------------

    def _messages(self) -> Iterator[bytes]:
        random = self._random
        good = list(self._stream())
        messages = mutate.shuffled(random, good, lambda message: mutate.mutated(random, message))
        if messages and random.random() < 0.1:  # a flood of one
            place = random.randrange(len(messages))
            messages[place:place] = [messages[place]] * random.choice((50, 500, 5_000))
        odd_json = random.random() < 0.3
        for message in messages:
            if odd_json and random.random() < 0.05:
                data = mutate.as_json(random, message)
            else:
                data = json.dumps(message).encode()
            if random.random() < 0.01:
                place = random.randrange(len(data) + 1)
                yield frame(random, TEXT, data[:place], fin=False) + frame(random, 0, data[place:])
            elif random.random() < 0.01:
                yield frame(random, random.choice((PING, PONG, BINARY)), data[:120])
            else:
                yield frame(random, TEXT, data)
            if random.random() < 0.3:
                for name in _MARK.findall(self.received)[-3:]:
                    echo = self._event("mark", mark={"name": name.decode("latin-1")})
                    yield frame(random, TEXT, json.dumps(echo).encode())
        if random.random() < 0.3:
            yield frame(random, CLOSE, b"\x03\xe8")

    def _event(self, kind: str, **fields: object) -> dict[str, object]:
        return {"event": kind, "sequenceNumber": "1", "streamSid": f"MZ{self._number}", **fields}

    def _stream(self) -> Iterator[dict[str, object]]:
        random = self._random
        yield {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        yield self._event(
            "start",
            start={
                "streamSid": f"MZ{self._number}",
                "accountSid": "AC1",
                "callSid": f"CA{self._number}",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"from": "+15550100", "to": "+15550199", "stream": "1"},
            },
        )
        size = random.choice((160, 160, 160, 1_600, 16_000, 130_000))
        media_ms = random.choice((0, 0, 10**6))
        for _ in range(random.choice((5, 50, 300))):
            media_ms += random.choice((20, 20, 20, 20, 40, 5_000, -20))
            payload = base64.b64encode(random.randbytes(min(size, 160)) * (size // 160)).decode()
            yield self._event(
                "media",
                media={
                    "track": "inbound",
                    "chunk": "1",
                    "timestamp": str(max(0, media_ms)),
                    "payload": payload,
                },
            )
            if random.random() < 0.1:
                name = random.choice(("p1", "p2", "f1", "s1", mutate.text(random), "m" * 200_000))
                yield self._event("mark", mark={"name": name})
            if random.random() < 0.05:
                yield self._event("dtmf", dtmf={"track": "inbound_track", "digit": "1"})
        yield self._event("stop", stop={"accountSid": "AC1", "callSid": f"CA{self._number}"})


def frame(
    random: Random,
    code: int,
    payload: bytes,
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """A WebSocket frame of a client; ``length`` is what it says instead of the truth."""
    said = len(payload) if length is None else length
    head = bytearray([(fin << 7) | (reserved << 4) | code])
    if said < 126:
        head.append((masked << 7) | said)
    elif said < 2**16:
        head += bytes([(masked << 7) | 126]) + said.to_bytes(2, "big")
    else:
        head += bytes([(masked << 7) | 127]) + said.to_bytes(8, "big")
    if not masked:
        return bytes(head) + payload
    mask = random.randbytes(4)
    # As one number: a loop over the bytes would cost more than everything else here.
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return bytes(head) + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def main() -> int:
    """Try cases until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--case", type=int)
    given = parser.parse_args()
    os.nice(10)
    number = given.case or 0
    inputs = 0
    kept: list[socket.socket] = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        print(number, inputs, flush=True)
        random = Random(f"gateway:{given.seed}:{number}")
        try:
            case = Case(random, given.port, number)
        except OSError:
            time.sleep(0.1)  # the other side notices when nobody listens any more
            continue
        case.run()
        inputs += case.inputs
        left = case.end()
        if left is not None:
            kept.append(left)
        if len(kept) > KEPT_OPEN:
            kept.pop(0).close()
        number += 1
        if given.case is not None:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
