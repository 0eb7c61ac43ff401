"""What the aligner's pool costs and how soon it answers, as one JSON line on standard output.

    python -m bench.alignment_latency [--cuts 60]

Two items of two calls are in flight at any time, audio ten times faster than it is spoken (a model
sends it faster than real time, and in bursts), its text before it. At a random moment the caller barges
in: the estimate is taken at once, the refined answer awaited. CPU is that of the worker process over
all audio it was given, whether its answer was wanted or not; memory is its resident set.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from pathlib import Path

from words.pool import AlignerPool
from words.timing import Method

_DATA = Path(__file__).parent.parent / "tests" / "words" / "data"
_PIECE_MS = 200
_FASTER = 10
_REPEATS = 4
"""The piece of five seconds, said so often: an item of twenty."""


async def measure(cuts: int) -> dict[str, float]:
    """Run so many barge-ins, two items at a time."""
    ulaw = (_DATA / "en_card.ulaw").read_bytes() * _REPEATS
    text = " ".join(json.loads((_DATA / "en_card.json").read_text("utf-8"))["words"])
    text = " ".join([text] * _REPEATS)
    pool = AlignerPool()
    began = time.perf_counter()
    await pool.start()
    start_s = time.perf_counter() - began
    process = pool.processes[0]
    idle_cpu_s = cpu_s(process)
    rng = random.Random(5)
    estimates_ms: list[float] = []
    refined_ms: list[float] = []
    audio_s = 0.0
    aligned = 0

    async def calls(n: int) -> None:
        nonlocal audio_s, aligned
        for _ in range(n):
            item = pool.open("en")
            assert item is not None, "two items never fill a pool"
            until = rng.randrange(3000, len(ulaw) // 8)
            sent = 0
            while sent < until:
                ahead = min(len(text), round(len(text) * (sent + 2500) * 8 / len(ulaw)))
                item.add_text(text[len(item.text) : ahead])
                item.add_audio(ulaw[sent * 8 : (sent + _PIECE_MS) * 8])
                sent += _PIECE_MS
                await asyncio.sleep(_PIECE_MS / 1000 / _FASTER)
            audio_s += sent / 1000
            at = time.perf_counter()
            aligned += item.estimate().method is Method.ALIGNED
            estimates_ms.append(1000 * (time.perf_counter() - at))
            at = time.perf_counter()
            assert await item.finish(complete=False) is not None
            refined_ms.append(1000 * (time.perf_counter() - at))

    await asyncio.gather(calls(cuts // 2), calls(cuts - cuts // 2))
    used_s = cpu_s(process) - idle_cpu_s
    memory_mb = resident_mb(process)
    await pool.close()
    return {
        "start_s": round(start_s, 3),
        "resident_mb": round(memory_mb, 1),
        "cpu_ms_per_audio_s": round(1000 * used_s / audio_s, 2),
        "estimate_ms_max": round(max(estimates_ms), 3),
        "estimate_aligned_share": round(aligned / cuts, 3),
        "refined_ms_p50": round(statistics.median(refined_ms), 2),
        "refined_ms_p99": round(statistics.quantiles(refined_ms, n=100)[98], 2),
        "refined_ms_max": round(max(refined_ms), 2),
        "cuts": cuts,
    }


def cpu_s(pid: int) -> float:
    """CPU time a process has used."""
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise LookupError("no VmRSS: not Linux")


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=60)
    result = asyncio.run(measure(parser.parse_args().cuts))
    print(json.dumps({"bench": "alignment", **result}))


if __name__ == "__main__":
    main()
