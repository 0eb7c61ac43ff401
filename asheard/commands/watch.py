"""``asheard watch CALL_SID``: follow a call until its transcript is final.

A terminal is redrawn with each change. Elsewhere each turn is printed once nobody speaks it any
more, and again, marked with ``~``, when it changed after that. With ``--json`` each state is one
line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from asheard.commands import connection
from asheard.commands.machine import to_json
from asheard.commands.show import heading, turn_line
from asheard.v1.transcript_pb2 import Role, Transcript, Turn

_HOME_AND_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("call_sid", metavar="CALL_SID", help="Twilio's identifier of the call")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Follow it."""
    printed: dict[str, str] = {}
    with connection.connected(args) as client:
        for transcript in client.watch(args.call_sid):
            if args.json:
                print(to_json(transcript), flush=True)
            elif sys.stdout.isatty():
                print(_HOME_AND_CLEAR + "\n".join(_screen(transcript)), flush=True)
            else:
                for line in _news(transcript, printed):
                    print(line, flush=True)
    return 0


def _screen(transcript: Transcript) -> Iterator[str]:
    yield heading(transcript)
    for turn in transcript.turns:
        yield turn_line(turn, terminal=True)


def _news(transcript: Transcript, printed: dict[str, str]) -> Iterator[str]:
    """Lines of turns that are over and were not printed like this yet."""
    for turn in transcript.turns:
        line = turn_line(turn, terminal=False)
        if printed.get(turn.item_id) != line and (transcript.final or _is_over(turn)):
            yield f"~{line[1:]}" if turn.item_id in printed else line
            printed[turn.item_id] = line
    if transcript.final:
        yield heading(transcript)


def _is_over(turn: Turn) -> bool:
    if turn.role == Role.ROLE_AGENT:
        return turn.HasField("position")
    return turn.role != Role.ROLE_CALLER or bool(turn.heard_text)
