"""``asheard bench``: each result one JSON object a line on standard output, progress on the other.

    asheard bench calls --calls 100 --seconds 20
    asheard bench compare --calls 10,50,100,200
    asheard bench capacity
    asheard bench system
    asheard bench soak --minutes 20 --total 2000
    asheard bench faults --only lost-socket,killed-gateway
    asheard bench conversations           how long callers hear nothing when much goes wrong
    asheard bench table RESULTS           those lines as Markdown
    asheard bench all                     what `make bench` runs, in under ten minutes on two cores

Pictures go to ``bench/out``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

from bench import results
from bench.capacity import capacities, ratio
from bench.compare import compare
from bench.conversations import run_conversations
from bench.results import CallsResult
from bench.run import Load, Setup, run_calls
from bench.soak import soak
from bench.system import SystemResult, run_system
from bench.systems import NAMES, System
from bench.table import tables
from runtime.errors import AsheardError
from runtime.process import EXIT_DONE, EXIT_FAILED, EXIT_USAGE

ROOT = Path(__file__).parent.parent
OUT = Path(__file__).parent / "out"

ALIGNMENT_DATA = ROOT.parent / "shared" / "data" / "alignment"
ALIGNMENT_SCORER = ROOT.parent / "shared" / "tools" / "score_alignment.py"
"""Labelled speech and its scorer lie beside the checkout, where somebody has put them: the speech
is not ours to hand on."""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What the scorer of the aligner printed."""

    bench: str = "words"
    status: int
    report: list[str]


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the bench that could not be run here, and why."""

    bench: str
    missing: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benches and their sizes."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    calls = benches.add_parser("calls", help="calls through one system")
    calls.add_argument("--system", choices=NAMES, default="asheard")
    calls.add_argument("--calls", type=int, default=100, metavar="N")
    calls.add_argument("--seconds", type=float, default=20, metavar="S")
    calls.add_argument("--sessions", type=int, default=1, help="session workers (default: 1)")
    calls.add_argument("--seed", type=int, default=1)
    calls.add_argument("--barge-ins", type=float, default=0.6, help="share of the agent's items")
    calls.add_argument("--core", type=int, help="keep the system on this core, the load elsewhere")
    calls.add_argument("--target", metavar="ws://…", help="a media socket that is served already")
    calls.add_argument(
        "--model-listen",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="where the simulated model listens; the target must be configured for it",
    )
    calls.add_argument("--transcripts", metavar="HOST:PORT", help="of the target's service")
    calls.add_argument("--pid", action="append", default=[], metavar="NAME=PID")

    comparison = benches.add_parser("compare", help="asheard, the yardstick and the floor")
    comparison.add_argument("--calls", type=_counts, default=[10, 50, 100, 200], metavar="N,N,…")
    comparison.add_argument("--seconds", type=float, default=15, metavar="S")
    comparison.add_argument("--sessions", type=int, default=1)

    limit = benches.add_parser("capacity", help="calls on one core until frames come late")
    limit.add_argument("--system", choices=NAMES, help="one alone (default: yardstick, asheard)")
    limit.add_argument("--calls", type=_counts, default=list(range(200, 1001, 50)), metavar="N,N,…")
    limit.add_argument("--seconds", type=float, default=10, metavar="S")
    limit.add_argument("--core", type=int, default=0)
    limit.add_argument("--barge-ins", type=float, default=0.6, help="share of the agent's items")

    whole = benches.add_parser("system", help="rightness on bad networks, strict simulators")
    whole.add_argument("--calls", type=int, default=10, help="on the good network")
    whole.add_argument("--calls-per-network", type=int, default=4)
    whole.add_argument("--cuts", type=int, default=5, help="in each call")
    whole.add_argument("--seed", type=int, default=1)

    long = benches.add_parser("soak", help="many short calls: does anything grow?")
    long.add_argument("--minutes", type=float, default=20)
    long.add_argument("--total", type=int, default=2000)
    long.add_argument("--at-once", type=int, default=50)
    long.add_argument("--system", choices=NAMES, default="asheard")

    faults = benches.add_parser(
        "faults", help="what once did harm, tried again; exits 1 if it does"
    )
    faults.add_argument("--only", type=_names, default=[], metavar="NAME,NAME,…")
    faults.add_argument("--calls", type=int, default=100, help="in which a process is killed (100)")
    faults.add_argument("--list", action="store_true", help="the names, and what is done")

    talks = benches.add_parser(
        "conversations", help="how long callers hear nothing when much goes wrong"
    )
    talks.add_argument("--calls", type=int, default=200, metavar="N")
    talks.add_argument("--at-once", type=int, default=40, metavar="N")
    talks.add_argument("--seed", type=int, default=1)

    benches.add_parser("playhead", help="the playhead against random networks, in virtual time")
    benches.add_parser("words", help="the aligner against labelled speech")
    shown = benches.add_parser("table", help="results as Markdown, for docs/performance.md")
    shown.add_argument("results", type=Path, help="what a bench wrote on standard output")
    shown.add_argument(
        "--before", type=Path, metavar="RESULTS", help="of faults: an older version's"
    )
    every = benches.add_parser("all", help="what `make bench` runs")
    every.add_argument("--calls", type=_counts, default=[10, 50, 100, 200], metavar="N,N,…")
    every.add_argument("--seconds", type=float, default=10, metavar="S")


def run(args: argparse.Namespace) -> int:
    """Do one of them."""
    return asyncio.run(_BENCHES[args.bench](args))


def say(result: object) -> None:
    """One line for machines; one for people, if there is something to say."""
    print(msgspec.json.encode(result).decode(), flush=True)
    if isinstance(result, CallsResult):
        progress(results.summary(result))


def progress(text: str) -> None:
    """Tell a person how it goes."""
    print(text, file=sys.stderr, flush=True)


async def _report(result: CallsResult) -> None:
    say(result)


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
    say(await run_calls(setup, Load(args.calls, args.seconds, args.barge_ins, args.seed)))
    return EXIT_DONE


async def _compare(args: argparse.Namespace) -> int:
    from bench.picture import draw_comparison

    sessions = getattr(args, "sessions", 1)
    found = await compare(args.calls, args.seconds, sessions=sessions, report=_report)
    say(found)
    draw_comparison(found, OUT / "compare.png")
    progress(f"drew {OUT / 'compare.png'}")
    return EXIT_DONE


async def _capacity(args: argparse.Namespace) -> int:
    found = await capacities(
        [args.system] if args.system else ["yardstick", "asheard"],
        args.calls,
        args.seconds,
        core=args.core,
        barge_in_share=args.barge_ins,
        report=_report,
    )
    for result in found.values():
        say(result)
    if not args.system:
        say(ratio(found["asheard"], found["yardstick"]))
    return EXIT_DONE


async def _system(args: argparse.Namespace) -> int:
    from bench.picture import draw_system

    found = await run_system(
        calls=args.calls,
        calls_per_network=args.calls_per_network,
        cuts=args.cuts,
        seed=args.seed,
    )
    for result in found:
        say(result)
        progress(_line(result))
    draw_system(found, OUT / "system.png")
    progress(f"drew {OUT / 'system.png'}")
    return EXIT_DONE


def _line(result: SystemResult) -> str:
    ours, usual = result.heard["transcript"], result.heard["characters_by_timestamps"]
    return (
        f"{result.network}: {result.cuts} cuts, exact {ours.exact_share} (usual "
        f"{usual.exact_share}), audio error {ours.audio_error_ms.median} / "
        f"{ours.audio_error_ms.most} ms, {result.outside_range} outside the range"
    )


async def _soak(args: argparse.Namespace) -> int:
    setup = Setup(args.system)
    say(await soak(setup, minutes=args.minutes, total=args.total, at_once=args.at_once))
    return EXIT_DONE


async def _faults(args: argparse.Namespace) -> int:
    from bench.faults.rows import SCENARIOS, FaultRow, Options
    from bench.faults.run import run_faults

    if args.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:<28} {scenario.done}")
        return EXIT_DONE

    def report(row: FaultRow) -> None:
        say(row)
        bound = (
            ""
            if row.bound is None
            else f" ({'at most' if row.at_most else 'at least'} {row.bound:g})"
        )
        value = "not in time" if row.value is None else f"{row.value:g} {row.unit}"
        progress(
            f"{'ok ' if row.ok else 'BAD'} {row.fault}: {row.measured}: {value}{bound} {row.note}"
        )

    try:
        found = await run_faults(Options(calls=args.calls), report, only=args.only)
    except ValueError as error:
        progress(str(error))
        return EXIT_USAGE
    return EXIT_DONE if all(row.ok for row in found) else EXIT_FAILED


async def _conversations(args: argparse.Namespace) -> int:
    found = await run_conversations(calls=args.calls, at_once=args.at_once, seed=args.seed)
    say(found)
    progress(
        f"{found.calls} calls in {found.seconds:.0f} s: longest dead air "
        f"{(found.dead_air_ms.most or 0) / 1000:.1f} s, {found.beyond} longer than promised, "
        f"{found.mute_calls} calls mute, {found.words_lost_after_noise} of "
        f"{found.words_cut_by_noise} words lost after noise"
    )
    return EXIT_DONE


async def _playhead(_args: argparse.Namespace) -> int:
    if importlib.util.find_spec("bench.playhead") is None:
        say(Missing(bench="playhead", missing="bench/playhead.py is not there"))
        return EXIT_FAILED
    found = importlib.import_module("bench.playhead").run()
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, int):
        return found
    for result in found or ():
        say(result)
    return EXIT_DONE


async def _words(_args: argparse.Namespace) -> int:
    if not ALIGNMENT_DATA.is_dir() or not ALIGNMENT_SCORER.is_file():
        say(Missing(bench="words", missing=f"no labelled speech at {ALIGNMENT_DATA}"))
        return EXIT_DONE
    progress("scoring the aligner …")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(ALIGNMENT_SCORER), "words.scored", "--cuts", "100", "-j", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    say(Words(status=done.returncode, report=done.stdout.splitlines()))
    return EXIT_DONE if done.returncode == 0 else EXIT_FAILED


async def _table(args: argparse.Namespace) -> int:
    before = args.before.read_text().splitlines() if args.before else ()
    print(tables(args.results.read_text().splitlines(), before))
    return EXIT_DONE


async def _all(args: argparse.Namespace) -> int:
    status = EXIT_DONE
    sizes = {"calls": 10, "calls_per_network": 4, "cuts": 5, "seed": 1}
    steps: tuple[tuple[str, argparse.Namespace], ...] = (
        ("playhead", args),
        ("words", args),
        ("system", argparse.Namespace(**sizes)),
        ("compare", args),
    )
    for name, arguments in steps:
        progress(f"bench {name} …")
        try:
            status = max(status, await _BENCHES[name](arguments))
        except (AsheardError, TimeoutError, RuntimeError, OSError) as error:
            # One part that cannot run does not take the others' results away.
            progress(f"bench {name} failed: {error}")
            status = EXIT_FAILED
    return status


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _counts(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError("give whole numbers, such as 10,50,100")
    return [int(part) for part in parts]


_BENCHES: dict[str, Callable[[argparse.Namespace], Coroutine[None, None, int]]] = {
    "calls": _calls,
    "compare": _compare,
    "capacity": _capacity,
    "system": _system,
    "soak": _soak,
    "faults": _faults,
    "conversations": _conversations,
    "playhead": _playhead,
    "words": _words,
    "table": _table,
    "all": _all,
}
