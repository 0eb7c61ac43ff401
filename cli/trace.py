"""``asheard trace CALL_SID``: what the playhead of a stored call was told, as a scenario file.

A field report becomes a test: the file goes to ``tests/scenarios/playout/``, and what the playhead
answers today stands in it. Item ids are replaced by ``item_1``, ``item_2`` …; there is no speech,
no text and no number in it. The facts are read from the store itself (``ASHEARD_STORE``), so this
runs where the transcript service runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Iterator

from msgspec import structs

from asheard.v1 import fact_pb2
from gateway.evidence import trace_event
from gateway.playout.positions import Part, TraceEvent
from gateway.playout.replay import scenario_text
from runtime.errors import NotFound
from transcript.config import TranscriptConfig
from transcript.service import open_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("call_sid", metavar="CALL_SID", help="Twilio's identifier of the call")
    parser.add_argument(
        "--store", metavar="URL", help="where the facts are (default: ASHEARD_STORE)"
    )
    parser.add_argument(
        "--stream", type=int, default=1, metavar="N",
        help="which media stream of the call, counted from 1 (default: 1)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the scenario."""
    environment = dict(os.environ)
    if args.store:
        environment["ASHEARD_STORE"] = args.store
    facts = asyncio.run(_facts(TranscriptConfig.from_env(environment).store, args.call_sid))
    streams = traces(facts)
    if not 1 <= args.stream <= len(streams):
        raise NotFound(f"--stream {args.stream}: {len(streams)} traced stream(s) in this call")
    prose = "A call from the field.\n\nSay here what it proves."
    sys.stdout.write(scenario_text(anonymous(streams[args.stream - 1]), prose))
    return 0


async def _facts(store_url: str, call_sid: str) -> tuple[fact_pb2.Fact, ...]:
    store = open_store(store_url)
    try:
        return (await store.read(call_sid)).facts
    finally:
        await store.close()


def traces(facts: Iterable[fact_pb2.Fact]) -> list[list[TraceEvent]]:
    """The playhead's inputs of each media stream, in the order in which the streams were stored."""
    streams: dict[str, dict[int, fact_pb2.PlayoutTraced]] = {}
    for fact in facts:
        if fact.WhichOneof("body") == "playout_traced":
            streams.setdefault(fact.writer, {})[fact.sequence] = fact.playout_traced
    return [
        [trace_event(event) for _, traced in sorted(pieces.items()) for event in traced.events]
        for pieces in streams.values()
    ]


def anonymous(trace: Iterable[TraceEvent]) -> Iterator[TraceEvent]:
    """The same trace with items named by their order."""
    names: dict[str, str] = {}
    for event in trace:
        if event.part is None:
            yield event
            continue
        name = names.setdefault(event.part.item_id, f"item_{len(names) + 1}")
        yield structs.replace(event, part=Part(name, event.part.content_index))
