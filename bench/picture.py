"""The pictures of a bench: cost and delay over the calls, rightness beside the usual ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.compare import Comparison
from bench.system import SystemResult

OUT = Path(__file__).parent / "out"

_COLOURS = {"asheard": "#0b6e4f", "yardstick": "#c1666b", "relay": "#8d99ae"}
_WAYS = {
    "transcript": "asheard",
    "characters_by_timestamps": "characters by\ntimestamps",
    "newest_acknowledged_mark": "newest\nacknowledged\nmark",
    "newest_unacknowledged_mark": "newest un-\nacknowledged\nmark",
    "all_text": "all text",
}


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """CPU, latency, barge-in and memory over the number of calls."""
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    rows = comparison.rows
    panels: tuple[tuple[str, Sequence[Mapping[str, float | None]], bool], ...] = (
        ("CPU-seconds per call-minute", [row.cpu_s_per_call_minute for row in rows], False),
        ("frame forward, 99 %, ms", [row.forward_p99_ms for row in rows], True),
        ("barge-in processing, 99 %, ms", [row.barge_in_p99_ms for row in rows], True),
        ("KB per call", [row.kb_per_call for row in rows], False),
    )
    for axis, (title, values, logarithmic) in zip(axes.flat, panels, strict=True):
        _lines(axis, [row.calls for row in rows], values)
        axis.set_title(title)
        axis.set_xlabel("calls")
        if logarithmic:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes.flat[0].legend(frameon=False)
    figure.suptitle(f"{comparison.date}, {comparison.cores} cores, load generator included")
    _save(figure, path)


def draw_system(results: Sequence[SystemResult], path: Path) -> None:
    """Rightness of the words on a good network, and the position's error on every network."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    good = results[0]
    shares = [100 * (good.heard[way].exact_share or 0) for way in _WAYS]
    colours = [_COLOURS["asheard"], *(["#8d99ae"] * (len(_WAYS) - 1))]
    bars = left.bar(list(_WAYS.values()), shares, color=colours)
    left.bar_label(bars, fmt="%.0f %%")
    left.set_title(f"heard words exactly right, {good.cuts} cuts")
    left.set_ylim(0, 105)
    left.tick_params(axis="x", labelsize=8)

    names = [result.network for result in results]
    places = range(len(names))
    for shift, (way, label, colour) in enumerate(
        (
            ("transcript", "asheard", _COLOURS["asheard"]),
            ("characters_by_timestamps", "elapsed timestamps", "#c1666b"),
            ("newest_acknowledged_mark", "newest acknowledged mark", "#8d99ae"),
        )
    ):
        errors = [result.heard[way].audio_error_ms.median or 0 for result in results]
        right.barh(
            [p + 0.27 * (shift - 1) for p in places], errors, 0.25, label=label, color=colour
        )
    right.set_yticks(list(places), names)
    right.invert_yaxis()
    right.set_title("error of the heard audio, median, ms")
    right.legend(frameon=False, loc="lower right")
    figure.suptitle(f"{good.date}, through the whole running system")
    _save(figure, path)


def _lines(axis: Axes, calls: Sequence[int], values: Sequence[Mapping[str, float | None]]) -> None:
    for name in values[0]:
        pairs = [(n, row[name]) for n, row in zip(calls, values, strict=True)]
        known = [(n, value) for n, value in pairs if value is not None]
        axis.plot(
            [n for n, _ in known], [v for _, v in known], marker="o", label=name,
            color=_COLOURS.get(name),
        )  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
