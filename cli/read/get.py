"""``asheard get CALL_SID``: the transcript of a call as it stands."""

from __future__ import annotations

import argparse
import sys

from asheard.v1.transcript_service_pb2 import GetTranscriptRequest
from cli.read import client
from cli.read.machine import to_json
from cli.read.show import heading, turn_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("call_sid", metavar="CALL_SID", help="Twilio's identifier of the call")
    client.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    with client.connected(args) as (service, metadata):
        transcript = service.GetTranscript(
            GetTranscriptRequest(call_sid=args.call_sid),
            metadata=metadata,
            timeout=client.DEADLINE_S,
        ).transcript
    if args.json:
        print(to_json(transcript, indent=2))
        return 0
    print(heading(transcript))
    for turn in transcript.turns:
        print(turn_line(turn, terminal=sys.stdout.isatty()))
    return 0
