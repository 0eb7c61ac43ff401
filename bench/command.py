"""``asheard bench``: each result one JSON object a line on standard output, progress on the other.

asheard bench calls --calls 100 --seconds 20
asheard bench compare --calls 10,50,100,200
asheard bench all                     what `make bench` runs, under ten minutes on two cores
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from bench import results
from bench.run import Load, Setup, run_calls
from bench.systems import NAMES, System
from runtime.process import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    commands = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    calls = commands.add_parser("calls", help="calls through one system")
    calls.add_argument("--system", choices=NAMES, default="asheard")
    calls.add_argument("--calls", type=int, default=100, metavar="N")
    calls.add_argument("--seconds", type=float, default=20, metavar="S")
    calls.add_argument("--sessions", type=int, default=1, help="session workers (default: 1)")
    calls.add_argument("--seed", type=int, default=1)
    calls.add_argument("--barge-ins", type=float, default=0.6, help="share of the agent's items")
    calls.add_argument("--core", type=int, help="keep the system on this core, the load elsewhere")
    calls.add_argument("--target", metavar="ws://…", help="a media socket that is served already")
    calls.add_argument("--model-listen", default="127.0.0.1:0", metavar="HOST:PORT")
    calls.add_argument("--transcripts", metavar="HOST:PORT", help="of the target's service")
    calls.add_argument("--pid", action="append", default=[], metavar="NAME=PID")


def run(args: argparse.Namespace) -> int:
    """Do one of them."""
    return asyncio.run(_calls(args))


async def _calls(args: argparse.Namespace) -> int:
    running = None
    if args.target:
        pids = {name: int(pid) for name, _, pid in (p.partition("=") for p in args.pid)}
        running = System("target", args.target, pids, args.transcripts)
    setup = Setup(
        system="target" if running else args.system,
        sessions=args.sessions,
        running=running,
        model_listen=args.model_listen,
        core=args.core,
    )
    load = Load(args.calls, args.seconds, args.barge_ins, args.seed)
    say(await run_calls(setup, load))
    return EXIT_DONE


def say(result: msgspec.Struct) -> None:
    """One line for machines, one for people."""
    print(msgspec.json.encode(result).decode(), flush=True)
    if isinstance(result, results.CallsResult):
        print(results.summary(result), file=sys.stderr, flush=True)
