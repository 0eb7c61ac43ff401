"""The search's compiled loop and its NumPy loop give the same answer, and grow with the graph."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import words.aligner.kernel as kernel_module
from tests.words.speech import PIECES, Piece, piece
from words.aligner import search, senones
from words.aligner.item import ItemAligner
from words.aligner.search import PhoneGraph, Search
from words.timing import WordTimes

SOURCE = Path(kernel_module.__file__).with_name("kernel.c")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernel, built here and now as the package's installation builds it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("holds the compiled loops against NumPy: needs a C compiler")
    target = tmp_path_factory.mktemp("kernel") / "_kernel.so"
    command = [compiler, "-O3", "-ffast-math", "-fPIC", "-shared", "-o", str(target), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    library = kernel_module.load(target)
    assert library is not None
    return library


def aligned(
    known: Piece, library: ctypes.CDLL | None, monkeypatch: pytest.MonkeyPatch
) -> WordTimes:
    monkeypatch.setattr(search, "kernel", lambda: library)
    monkeypatch.setattr(senones, "kernel", lambda: library)
    aligner = ItemAligner(known.language)
    aligner.add_text(known.text)
    aligner.add_audio(known.until(2500))
    return aligner.finish(complete=False)


@pytest.mark.parametrize("name", PIECES)
def test_numpy_and_c_agree(name: str, built: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    known = piece(name)
    assert aligned(known, built, monkeypatch) == aligned(known, None, monkeypatch)


def test_scores_agree(built: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = senones.senone_scorer()
    features = np.random.default_rng(3).normal(0, 12, (40, 39)).astype(np.float32)
    monkeypatch.setattr(senones, "kernel", lambda: built)
    in_c = scorer.scores(features)
    monkeypatch.setattr(senones, "kernel", lambda: None)
    np.testing.assert_allclose(scorer.scores(features), in_c, atol=1e-3)


def test_a_library_that_does_not_load_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "_kernel.so"
    broken.write_bytes(b"not a library")
    assert kernel_module.load(broken) is None


def line_of_phones(n: int) -> tuple[PhoneGraph, list[int]]:
    """Phones one after the other; phone k is scored by column k."""
    graph = PhoneGraph()
    junctions = [graph.junction() for _ in range(n + 1)]
    for k in range(n):
        graph.phone([k] * 3, junctions[k], junctions[k + 1])
    return graph, junctions


def scores_of(columns: list[int], width: int) -> np.ndarray:
    """Frames in which one column scores best."""
    scores = np.full((len(columns), width), -5.0, np.float32)
    scores[np.arange(len(columns)), columns] = 0.0
    return scores


def test_the_path_follows_the_scores() -> None:
    graph, junctions = line_of_phones(3)
    found = Search(graph, np.zeros((1, 10)), junctions[0])
    found.advance(scores_of([0] * 5 + [1] * 3 + [2] * 6, 3))
    path = found.path_to_junction(junctions[3])
    assert [(r.phone, r.start, r.end) for r in path] == [(0, 0, 5), (1, 5, 8), (2, 8, 14)]


def test_a_graph_may_grow_behind_the_search() -> None:
    graph, junctions = line_of_phones(1)
    found = Search(graph, np.zeros((1, 10)), junctions[0])
    found.advance(scores_of([0] * 5, 3))
    first_jump = graph.n_jumps
    end = graph.junction()
    graph.phone([1] * 3, junctions[1], end)
    found.graph_grew(first_jump)
    found.advance(scores_of([1] * 4, 3))
    assert [(r.phone, r.start, r.end) for r in found.path_to_junction(end)] == [
        (0, 0, 5),
        (1, 5, 9),
    ]


def test_jumps_lead_forward() -> None:
    graph, junctions = line_of_phones(2)
    with pytest.raises(ValueError, match="forward"):
        graph.jump(junctions[1], junctions[0], 0.0)
