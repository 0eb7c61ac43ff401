"""The compiled loops and those in NumPy give the same answer, and the search grows with the graph."""

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
from words.aligner.search import GraphPart, Jump, Phone, PhoneGraph, Record, Search
from words.timing import WordTimes

SOURCE = Path(kernel_module.__file__).with_name("kernel.c")


def built_from(source: Path, target: Path, *flags: str) -> ctypes.CDLL | None:
    """The kernel, built here and now as the package's installation builds it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("holds the compiled loops against NumPy: needs a C compiler")
    command = [compiler, "-O3", *flags, "-fPIC", "-shared", "-o", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return kernel_module.load(target)


def compiled(target: Path, *flags: str) -> ctypes.CDLL:
    library = built_from(SOURCE, target, *flags)
    assert library is not None
    return library


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(tmp_path_factory.mktemp("kernel") / "_kernel.so")


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


@pytest.fixture(scope="module", params=[16, 32, 64])
def of_width(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    """The kernel for processors whose widest vectors have so many bytes."""
    target = tmp_path_factory.mktemp("kernel") / "_kernel.so"
    return compiled(target, f"-DWIDEST={request.param}")


@pytest.mark.parametrize("frames", [1, 40, 300])
def test_scores_agree(of_width: ctypes.CDLL, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = senones.senone_scorer()
    features = np.random.default_rng(3).normal(0, 12, (frames, 39)).astype(np.float32)
    monkeypatch.setattr(senones, "kernel", lambda: of_width)
    in_c = scorer.scores(features)
    monkeypatch.setattr(senones, "kernel", lambda: None)
    np.testing.assert_allclose(scorer.scores(features), in_c, atol=1e-3)


def test_a_library_that_does_not_load_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "_kernel.so"
    broken.write_bytes(b"not a library")
    assert kernel_module.load(broken) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int32_t source, target;     /* junction entered", "int32_t target, source;     /* junction entered"),
        ("int32_t low, high;          /* phones", "int32_t other, low, high;   /* phones"),
        ("double entry;", "double other, entry;"),
        ("#define GAUSSIANS 64", "#define GAUSSIANS 128"),
        ("N_NUMBERS, STATES,", "N_NUMBERS + 1, STATES,"),
        ("const int32_t layout[", "const int32_t outlay["),
    ],
)  # fmt: skip
def test_a_library_of_another_layout_is_passed_over(old: str, new: str, tmp_path: Path) -> None:
    source = SOURCE.read_text()
    assert source.count(old) == 1
    (tmp_path / SOURCE.name).write_text(source.replace(old, new))
    assert built_from(tmp_path / SOURCE.name, tmp_path / "_kernel.so", "-O0") is None


def line_of_phones(columns: range) -> GraphPart:
    """Phones one after the other, each scored by a column."""
    phones = [Phone([column] * 3, k, k + 1) for k, column in enumerate(columns)]
    return GraphPart(len(phones) + 1, phones, [])


def scores_of(columns: list[int], width: int) -> np.ndarray:
    """Frames in which one column scores best."""
    scores = np.full((len(columns), width), -5.0, np.float32)
    scores[np.arange(len(columns)), columns] = 0.0
    return scores


def test_the_path_follows_the_scores() -> None:
    graph = PhoneGraph()
    graph.append(line_of_phones(range(3)))
    found = Search(graph, np.zeros((1, 10)))
    found.advance(scores_of([0] * 5 + [1] * 3 + [2] * 6, 3))
    assert found.path_to_junction(3) == [Record(0, 0, 5), Record(1, 5, 8), Record(2, 8, 14)]


def test_a_graph_may_grow_behind_the_search() -> None:
    graph = PhoneGraph()
    graph.append(line_of_phones(range(1)))
    found = Search(graph, np.zeros((1, 10)))
    found.advance(scores_of([0] * 5, 3))
    graph.append(line_of_phones(range(1, 2)))
    found.graph_grew()
    found.advance(scores_of([1] * 4, 3))
    assert found.path_to_junction(2) == [Record(0, 0, 5), Record(1, 5, 9)]


def test_a_part_counts_from_where_it_is_appended() -> None:
    """One that is appended twice is two; a phone that leads back and a jump stay what they are."""
    part = GraphPart(
        3,
        [Phone([0] * 3, 0, 1), Phone([1] * 3, 1, 2), Phone([2] * 3, 2, 1)],
        [Jump(1, 2, -1.0), Jump(0, 1, -2.0)],
    )
    graph = PhoneGraph()
    graph.append(part)
    graph.append(part)
    assert graph.phones.view[:, 3:5].tolist() == [[0, 1], [1, 2], [2, 1], [2, 3], [3, 4], [4, 3]]
    assert graph.jumps.view.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert graph.junctions.view.tolist() == [[0, 0, 0], [1, 1, 1], [2, 3, 2], [4, 4, 3], [5, 5, 4]]


def test_jumps_lead_forward() -> None:
    with pytest.raises(ValueError, match="forward"):
        GraphPart(3, [], [Jump(1, 0)])
