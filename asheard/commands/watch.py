"""``asheard watch CALL_SID``: follow a call until its transcript is final.

A terminal is redrawn with each change. Elsewhere each turn is printed once nobody speaks it any
more, and again, marked with ``~``, when it changed after that; a silence, when it is over. With
``--json`` each state is one line.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator

from asheard.commands import connection
from asheard.commands.machine import to_json
from asheard.commands.show import heading, lines, silence_line, turn_line
from asheard.timeline import timeline
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
                print(_HOME_AND_CLEAR + "\n".join(lines(transcript, terminal=True)), flush=True)
            else:
                for line in _news(transcript, printed):
                    print(line, flush=True)
    return 0


def _news(transcript: Transcript, printed: dict[str, str]) -> Iterator[str]:
    """Lines of turns and silences that are over and were not printed like this yet.

    Args:
        transcript: As it stands.
        printed: The last line of each turn, and the lines of silences; is kept up to date.
    """
    silences: Counter[str] = Counter()
    for entry in timeline(transcript):
        if isinstance(entry, Turn):
            key, line = entry.item_id, turn_line(entry, terminal=False)
            is_over = transcript.final or _is_over(entry)
        elif entry.HasField("silence"):
            line = silence_line(entry, terminal=False)
            silences[line] += 1  # several may look alike; none changes
            key, is_over = f"{silences[line]}. {line}", True
        else:
            continue
        if is_over and printed.get(key) != line:
            yield f"~{line[1:]}" if key in printed else line
            printed[key] = line
    if transcript.final:
        yield heading(transcript)


def _is_over(turn: Turn) -> bool:
    if turn.role == Role.ROLE_AGENT:
        nothing_comes = bool(turn.incomplete_reason) and not turn.generated_audio_ms
        return turn.HasField("position") or nothing_comes
    return turn.role != Role.ROLE_CALLER or bool(turn.heard_text) or turn.transcription_failed
