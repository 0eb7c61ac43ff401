"""``asheard check-heard CALL_SID PASSAGE``: was this price, this disclosure heard?

Exit status 0 when every word of it was heard, 1 when not.
"""

from __future__ import annotations

import argparse

from asheard.v1.transcript_service_pb2 import CheckHeardRequest, PassageResult
from cli.read import client
from cli.read.machine import to_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("call_sid", metavar="CALL_SID", help="Twilio's identifier of the call")
    parser.add_argument("passage", metavar="PASSAGE", help="the words to look for, in quotes")
    client.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, print the answer; the exit status says it too."""
    with client.connected(args) as (service, metadata):
        answer = service.CheckHeard(
            CheckHeardRequest(call_sid=args.call_sid, passage=args.passage),
            metadata=metadata,
            timeout=client.DEADLINE_S,
        )
    if args.json:
        print(to_json(answer))
    else:
        result = PassageResult.Name(answer.result).removeprefix("PASSAGE_RESULT_")
        where = f" (in {', '.join(answer.turns)})" if answer.turns else ""
        print(f"{result.lower().replace('_', ' ')}, {round(100 * answer.share)} %{where}")
    return 0 if answer.result == PassageResult.PASSAGE_RESULT_HEARD else 1
