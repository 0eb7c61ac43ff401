"""``asheard check-heard CALL_SID PASSAGE``: was this price, this disclosure heard?

Exit status 0 when every word of it was heard, 1 when not.
"""

from __future__ import annotations

import argparse

from asheard.commands import connection
from asheard.commands.machine import to_json
from asheard.v1.transcript_service_pb2 import PassageResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("call_sid", metavar="CALL_SID", help="Twilio's identifier of the call")
    parser.add_argument("passage", metavar="PASSAGE", help="the words to look for, in quotes")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, print the answer; the exit status says it too."""
    with connection.connected(args) as client:
        answer = client.check_heard(args.call_sid, args.passage)
    if args.json:
        print(to_json(answer))
    else:
        result = PassageResult.Name(answer.result).removeprefix("PASSAGE_RESULT_")
        where = f" (in {', '.join(answer.turns)})" if answer.turns else ""
        print(f"{result.lower().replace('_', ' ')}, {round(100 * answer.share)} %{where}")
    return 0 if answer.result == PassageResult.PASSAGE_RESULT_HEARD else 1
