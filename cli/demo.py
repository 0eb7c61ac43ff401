"""``asheard demo``: the bakery call through the three real services, checked against the truth.

The ends are simulated, and so the truth is known: which bytes of the agent's audio the carrier
played, and where each word lies in them. The demo prints what was generated with the unheard words
marked, and its exit status says whether the system's transcript is right.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys

from asheard.v1 import transcript_pb2
from cli.local import local_system
from runtime.process import EXIT_DONE, EXIT_FAILED
from simulators import truth
from simulators.realtime.script import bakery as bakery_agent
from simulators.twilio import CallTruth, TwilioCaller
from simulators.twilio.script import bakery as bakery_caller

AGENT, CALLER = transcript_pb2.ROLE_AGENT, transcript_pb2.ROLE_CALLER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--logs", action="store_true", help="show the services' log lines")


def run(args: argparse.Namespace) -> int:
    """Play the call, print it, judge it."""
    return asyncio.run(_demo(show_logs=args.logs))


async def _demo(*, show_logs: bool) -> int:
    logs = io.StringIO()
    async with local_system(bakery_agent(), sys.stderr if show_logs else logs) as system:
        print("A caller rings the bakery … (about 20 seconds, in real time)\n", flush=True)
        call = await TwilioCaller(system.voice_url, bakery_caller()).run()
        if call.ending != "hung_up":
            print("WRONG: the call did not go through:", *call.warnings, sep="\n  ")
            return EXIT_FAILED
        transcript = await system.final_transcript(call.call_sid)
        [heard] = truth.join([call], system.realtime.sessions)
    _print(transcript, call)
    faults = _faults(transcript, heard, call)
    if faults:
        print("\nWRONG:", *faults, sep="\n  ")
        if not show_logs:
            print("\nThe services said:", logs.getvalue(), sep="\n")
        return EXIT_FAILED
    print("\nRight: every word, against what the simulated carrier really played.")
    return EXIT_DONE


def _print(transcript: transcript_pb2.Transcript, call: CallTruth) -> None:
    barge_ins = list(call.barge_ins)
    for turn in transcript.turns:
        at = f"{turn.start_ms / 1000:6.2f} s" if turn.HasField("start_ms") else " " * 8
        if turn.role == CALLER:
            print(f"{at}  caller  {turn.heard_text}")
            continue
        unheard = turn.generated_text[len(turn.heard_text) :].strip()
        print(f"{at}  agent   {turn.heard_text}" + (f" {struck_out(unheard)}" if unheard else ""))
        played, generated = turn.heard_audio_ms / 1000, turn.generated_audio_ms / 1000
        line = f"{played:.2f} s played of {generated:.2f} s generated"
        if turn.interrupted and barge_ins:
            line += f"; silent {barge_ins.pop(0).latency_ms} ms after the caller began to speak"
        print(f"{'':8}          └ {line}")


def struck_out(text: str) -> str:
    """Words the caller did not hear: struck out on a terminal, in brackets elsewhere."""
    return f"\x1b[9;2m{text}\x1b[0m" if sys.stdout.isatty() else f"[unheard: {text}]"


def _faults(
    transcript: transcript_pb2.Transcript, heard: truth.HeardCall, call: CallTruth
) -> list[str]:
    faults = [f"Twilio warned: {warning}" for warning in call.warnings]
    if not heard.frames.intact:
        faults.append("caller frames were lost, repeated or out of order")
    agent = [turn for turn in transcript.turns if turn.role == AGENT]
    if [turn.item_id for turn in agent] != [item.item_id for item in heard.items]:
        faults.append("the agent's turns are not the items that the model spoke")
        return faults
    for turn, item in zip(agent, heard.items, strict=True):
        if turn.heard_text != item.heard_text:
            faults.append(f"heard was {item.heard_text!r}, the transcript says {turn.heard_text!r}")
        if turn.interrupted != bool(item.unheard_text):
            faults.append(f"interrupted is {turn.interrupted} for {item.generated_text!r}")
    said = [line.text for line in call.caller_lines]
    transcribed = [turn.heard_text for turn in transcript.turns if turn.role == CALLER]
    if transcribed != said:
        faults.append(f"the caller said {said}, the transcript says {transcribed}")
    if not any(turn.interrupted for turn in agent):
        faults.append("nobody was interrupted")
    return faults
