"""A process that sends a media stream what no carrier would: ``python -m bench.faults.hostile``.

In a process of its own, and through a plain socket: so much of it takes a core, and what is measured
beside it must not wait for that.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import struct
import sys
import time
from urllib.parse import urlsplit

from websockets.sync.client import connect

FRAMES_AT_ONCE = 64


def main() -> int:
    """Send, and then wait until the gateway has closed, or a while is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("call_sid")
    parser.add_argument("kind", choices=("marks", "media"))
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument(
        "--bytes", type=int, required=True, help="length of a mark's name, or audio"
    )
    parser.add_argument("--tag", default="", help="put into each frame of audio, with its number")
    parser.add_argument(
        "--stay", type=float, default=5.0, help="seconds to stay after the last one"
    )
    args = parser.parse_args()
    stream_sid = "MZ" + args.call_sid[2:]
    parts = urlsplit(args.url)
    tcp = socket.create_connection((parts.hostname, parts.port))
    with connect(args.url, sock=tcp, compression=None, proxy=None, max_size=None) as web:
        web.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        media_format = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        start = {"streamSid": stream_sid, "accountSid": "AC1", "callSid": args.call_sid,
                 "tracks": ["inbound"], "mediaFormat": media_format,
                 "customParameters": {}}  # fmt: skip
        web.send(json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": stream_sid,
                             "start": start}))  # fmt: skip
        print("started", flush=True)
        time.sleep(0.5)
        try:
            for first in range(0, args.count, FRAMES_AT_ONCE):
                last = min(args.count, first + FRAMES_AT_ONCE)
                tcp.sendall(
                    b"".join(_frame(args, stream_sid, number) for number in range(first, last))
                )
            print("sent", flush=True)
            time.sleep(args.stay)
        except OSError as error:
            print(f"stopped by {type(error).__name__}", flush=True)
        tcp.close()
    return 0


def _frame(args: argparse.Namespace, stream_sid: str, number: int) -> bytes:
    head = {"sequenceNumber": str(number + 2), "streamSid": stream_sid}
    if args.kind == "marks":
        name = f"x{number}".ljust(args.bytes, "m")
        return _masked(json.dumps({"event": "mark", **head, "mark": {"name": name}}))
    audio = f"{args.tag}#{number}".encode().ljust(args.bytes, b"\xff")
    media = {
        "track": "inbound", "chunk": str(number + 1), "timestamp": str(20 * (number + 1)),
        "payload": base64.b64encode(audio).decode(),
    }  # fmt: skip
    return _masked(json.dumps({"event": "media", **head, "media": media}))


def _masked(text: str) -> bytes:
    """A client's text frame; masked with zeros, which leaves the text as it is."""
    data = text.encode()
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
    return head + bytes(4) + data


if __name__ == "__main__":
    sys.exit(main())
