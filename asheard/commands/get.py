"""``asheard get CALL_SID``: the transcript of a call as it stands."""

from __future__ import annotations

import argparse
import sys

from asheard.commands import connection
from asheard.commands.machine import to_json
from asheard.commands.show import lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("call_sid", metavar="CALL_SID", help="Twilio's identifier of the call")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    with connection.connected(args) as client:
        transcript = client.get(args.call_sid)
    if args.json:
        print(to_json(transcript, indent=2))
        return 0
    for line in lines(transcript, terminal=sys.stdout.isatty()):
        print(line)
    return 0
