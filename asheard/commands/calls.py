"""``asheard calls``: the calls there are, newest first."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from asheard.commands import connection
from asheard.commands.machine import to_json
from asheard.commands.show import call_line
from asheard.v1.transcript_pb2 import CallState

_STATES = {
    "active": CallState.CALL_STATE_ACTIVE,
    "completed": CallState.CALL_STATE_COMPLETED,
    "failed": CallState.CALL_STATE_FAILED,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--state", choices=sorted(_STATES), help="only calls in this state")
    parser.add_argument("--number", default="", help="only calls from or to exactly this number")
    parser.add_argument(
        "--after", type=_time, metavar="TIME", help="only calls that started at or after this"
    )
    parser.add_argument(
        "--before", type=_time, metavar="TIME", help="only calls that started before this"
    )
    parser.add_argument(
        "--limit", type=_count, default=100, metavar="N", help="at most so many (default: 100)"
    )
    connection.add_arguments(parser)
    parser.epilog = "TIME is ISO 8601, such as 2026-11-23 or 2026-11-23T10:30:00Z; UTC unless said."


def run(args: argparse.Namespace) -> int:
    """List them."""
    with connection.connected(args) as client:
        listed = client.list(
            state=_STATES[args.state] if args.state else CallState.CALL_STATE_UNSPECIFIED,
            number=args.number,
            started_after=args.after,
            started_before=args.before,
            limit=args.limit,
        )
    if args.json:
        print(to_json(listed, indent=2))
        return 0
    for call in listed.calls:
        print(call_line(call))
    if listed.next_page_token:
        print("… and older ones; see --limit and --before")
    return 0


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("give ISO 8601, such as 2026-11-23T10:30Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("give a whole number from 1")
    return int(text)
