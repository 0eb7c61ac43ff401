"""``asheard simulate twilio`` and ``asheard simulate realtime``: the simulators on their own.

``twilio`` places calls and ends when they are over: 0 if every call ran its script to the end,
else 1. ``realtime`` serves until SIGTERM or Ctrl-C. Both write what really happened to ``--truth
FILE``, one JSON object a line: a call (``CallTruth``) or a session (``SessionTruth``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path as FilePath

from runtime.errors import ConfigurationError
from runtime.process import EXIT_DONE, EXIT_FAILED
from simulators.network import DIRECT, MarkFaults, Network, Path
from simulators.realtime import script as agent
from simulators.realtime.script import AgentScript
from simulators.realtime.server import RealtimeSimulator
from simulators.script_file import agent_script, caller_script
from simulators.twilio import script as caller
from simulators.twilio.call_truth import CallTruth
from simulators.twilio.client import CarrierOptions, TwilioCaller
from simulators.twilio.script import CallerScript


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``twilio`` and ``realtime`` and their options."""
    which = parser.add_subparsers(dest="which", required=True, metavar="{twilio,realtime}")
    twilio = which.add_parser("twilio", help="place calls, as Twilio would")
    twilio.add_argument("url", help="voice webhook (http, https) or media socket (ws, wss)")
    twilio.add_argument("--script", help="caller script, YAML; the bakery caller if left out")
    twilio.add_argument("--calls", type=int, default=1, metavar="N", help="how many (1)")
    twilio.add_argument(
        "--spread-ms", type=int, default=0, metavar="MS", help="begin them over so much time (0)"
    )
    twilio.add_argument(
        "--connect-to", metavar="HOST:PORT", help="reach this instead of the URL's own host"
    )
    twilio.add_argument(
        "--delay-ms",
        type=_network,
        default=DIRECT,
        metavar="MS[+JITTER]",
        help="delay on the way to the server, and back (0)",
    )
    twilio.add_argument("--marks-lost", type=_share, default=0.0, metavar="SHARE")
    twilio.add_argument("--marks-late", type=_share, default=0.0, metavar="SHARE")
    twilio.add_argument("--marks-duplicated", type=_share, default=0.0, metavar="SHARE")
    twilio.add_argument("--omit-silence", action="store_true", help="leave out silent frames")
    twilio.add_argument(
        "--strict", action="store_true", help="end a stream at the first message Twilio warns of"
    )
    realtime = which.add_parser("realtime", help="serve the model's end")
    realtime.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="where (127.0.0.1:0, which is any free port)",
    )
    realtime.add_argument("--script", help="agent script, YAML; the bakery agent if left out")
    realtime.add_argument("--speed", type=float, help="times real time; the script's if left out")
    realtime.add_argument("--api-key", help="the only key to accept; any if left out")
    realtime.add_argument("--expire-s", type=float, help="life of a session, instead of 60 minutes")
    realtime.add_argument("--beta", action="store_true", help="speak the beta interface's names")
    realtime.add_argument(
        "--delay-ms",
        type=_network,
        default=DIRECT,
        metavar="MS[+JITTER]",
        help="delay on the way to the model, and back (0)",
    )
    for command in (twilio, realtime):
        command.add_argument("--seed", type=int, default=0, help="of everything random (0)")
        command.add_argument("--truth", metavar="FILE", help="write here what really happened")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status.

    Raises:
        ConfigurationError: A script file is bad or unreadable, or an option makes no sense.
    """
    truth = None if args.truth is None else FilePath(args.truth)
    if args.which == "twilio":
        return asyncio.run(_until_signal(_call(args, _caller(args), truth)))
    return asyncio.run(_until_signal(_serve(args, _agent(args), truth)))


async def _until_signal(work: Awaitable[int]) -> int:
    """Run something; SIGTERM and Ctrl-C cancel it, and it cleans up."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    return await task


# --- twilio -------------------------------------------------------------------------------------


def _caller(args: argparse.Namespace) -> CallerScript:
    if args.calls < 1:
        raise ConfigurationError("--calls must be at least 1")
    if not args.url.startswith(("http://", "https://", "ws://", "wss://")):
        raise ConfigurationError("the URL must begin with http://, https://, ws:// or wss://")
    if args.script is None:
        return caller.bakery()
    return caller_script(_read(args.script), args.script)


async def _call(args: argparse.Namespace, script: CallerScript, truth: FilePath | None) -> int:
    source = random.Random(args.seed)
    faults = MarkFaults(args.marks_lost, args.marks_late, duplicated=args.marks_duplicated)
    callers = [
        TwilioCaller(
            args.url,
            script,
            network=Network(args.delay_ms, args.delay_ms, faults, seed=source.getrandbits(32)),
            auth_token=os.environ.get("TWILIO_AUTH_TOKEN"),
            connect_to=args.connect_to,
            options=CarrierOptions(omit_silence=args.omit_silence, close_on_violation=args.strict),
        )
        for _ in range(args.calls)
    ]

    async def place(index: int) -> CallTruth:
        await asyncio.sleep(args.spread_ms / 1000 * index / args.calls)
        done = await callers[index].run()
        print(_summary(done), flush=True)
        return done

    status = EXIT_FAILED
    try:
        calls = await asyncio.gather(*(place(index) for index in range(args.calls)))
        if all(call.ending == "hung_up" and not call.timed_out_steps for call in calls):
            status = EXIT_DONE
    except asyncio.CancelledError:
        print("stopped before the calls were over", file=sys.stderr)
    if truth is not None:
        _write(truth, [each.truth.to_json() for each in callers])
    return status


def _summary(call: CallTruth) -> str:
    """One line on one call; no number, no speech."""
    text = f"{call.call_sid} {call.ending}: {call.played_ms / 1000:.1f} s of the agent played"
    for barge_in in call.barge_ins:
        text += f", silent {barge_in.latency_ms} ms after a barge-in"
    for step in call.timed_out_steps:
        text += f", step {step} never had its occasion"
    for warning in call.warnings:
        text += f", {warning}"
    return text


# --- realtime -----------------------------------------------------------------------------------


def _agent(args: argparse.Namespace) -> AgentScript:
    script = agent.bakery()
    if args.script is not None:
        script = agent_script(_read(args.script), args.script)
    if args.speed is not None:
        if args.speed <= 0:
            raise ConfigurationError("--speed must be above 0")
        script = dataclasses.replace(script, speed=args.speed)
    if args.expire_s is not None:
        if args.expire_s <= 0:
            raise ConfigurationError("--expire-s must be above 0")
        script = dataclasses.replace(script, expires_after_ms=int(args.expire_s * 1000))
    if args.beta:
        script = dataclasses.replace(script, names="beta")
    return script


async def _serve(args: argparse.Namespace, script: AgentScript, truth: FilePath | None) -> int:
    host, port = args.listen
    simulator = RealtimeSimulator(
        script,
        host=host,
        port=port,
        api_key=args.api_key,
        to_server=args.delay_ms,
        from_server=args.delay_ms,
        seed=args.seed,
    )
    try:
        async with simulator:
            print(f"realtime simulator at {simulator.url}", flush=True)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    except OSError as error:
        raise ConfigurationError(f"--listen {host}:{port}: {error.strerror}") from None
    finally:
        if truth is not None:
            _write(truth, [session.to_json() for session in simulator.sessions])
    return EXIT_DONE


# --- options and files --------------------------------------------------------------------------


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError("must be HOST:PORT or PORT")
    return host or "127.0.0.1", int(port)


def _network(text: str) -> Path:
    delay, _, jitter = text.partition("+")
    if not delay.isdecimal() or (jitter and not jitter.isdecimal()):
        raise argparse.ArgumentTypeError("must be a number of ms, or two with a + between")
    return Path(int(delay), int(jitter or 0))


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return share


def _read(name: str) -> str:
    try:
        return FilePath(name).read_text()
    except OSError as error:
        raise ConfigurationError(f"{name}: {error.strerror}") from None


def _write(path: FilePath, objects: Sequence[bytes]) -> None:
    path.write_bytes(b"".join(text + b"\n" for text in objects))
