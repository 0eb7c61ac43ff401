"""Finds the compiled inner loops, ``kernel.c``, where they were built.

The library is optional: it is built when the package is installed on a machine with a C compiler, and
without it NumPy computes the same numbers, several times slower.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from words.aligner import layout


@lru_cache(maxsize=1)
def kernel() -> ctypes.CDLL | None:
    """The compiled loops, or None where they were not built; then NumPy does the work."""
    here = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        path = here / f"_kernel{suffix}"
        library = load(path) if path.is_file() else None
        if library is not None:
            return library
    return None


def load(path: Path) -> ctypes.CDLL | None:
    """Load a built library, or None when it was built for another machine or from other source."""
    try:
        library = ctypes.CDLL(str(path))
        library.advance.restype = ctypes.c_int32
        library.scores.restype = None
        if _layout(library) != layout.numbers():
            return None
    except (OSError, AttributeError, ValueError):
        return None  # NumPy gives the same answer
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.advance.argtypes = [pointer, pointer, pointer, integer, integer, integer]
    library.scores.argtypes = [pointer, pointer, integer, pointer, integer]
    return library


def _layout(library: ctypes.CDLL) -> list[int]:
    """The numbers of :mod:`words.aligner.layout` as the library was built with them.

    Raises:
        ValueError: It has none.
    """
    count = ctypes.c_int32.in_dll(library, "layout").value
    if count != len(layout.numbers()):
        return []
    return list((ctypes.c_int32 * count).in_dll(library, "layout"))
