"""``asheard calls``: the calls there are, newest first."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from asheard.v1.transcript_pb2 import CallState
from asheard.v1.transcript_service_pb2 import ListCallsRequest, ListCallsResponse
from cli.read import client
from cli.read.machine import to_json
from cli.read.show import call_line

_STATES = {
    "active": CallState.CALL_STATE_ACTIVE,
    "completed": CallState.CALL_STATE_COMPLETED,
    "failed": CallState.CALL_STATE_FAILED,
}
_PAGE = 1000


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
    client.add_arguments(parser)
    parser.epilog = "TIME is ISO 8601, such as 2026-11-23 or 2026-11-23T10:30:00Z; UTC unless said."


def run(args: argparse.Namespace) -> int:
    """List them."""
    request = ListCallsRequest(number=args.number)
    if args.state:
        request.state = _STATES[args.state]
    if args.after:
        request.started_after.FromDatetime(args.after)
    if args.before:
        request.started_before.FromDatetime(args.before)
    listed = ListCallsResponse()
    with client.connected(args) as (service, metadata):
        while True:
            request.page_size = min(_PAGE, args.limit - len(listed.calls))
            page = service.ListCalls(request, metadata=metadata, timeout=client.DEADLINE_S)
            listed.calls.extend(page.calls)
            request.page_token = listed.next_page_token = page.next_page_token
            if not page.next_page_token or len(listed.calls) >= args.limit:
                break
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
