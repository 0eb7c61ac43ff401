"""Finds the compiled inner loops, ``kernel.c``, where they were built.

The library is optional: it is built when the package is installed on a machine with a C compiler, and
without it NumPy computes the same numbers, several times slower.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


@lru_cache(maxsize=1)
def kernel() -> ctypes.CDLL | None:
    """The compiled loops, or None where they were not built; then NumPy does the work."""
    here = Path(__file__).parent
    built = [path for s in EXTENSION_SUFFIXES if (path := here / f"_kernel{s}").is_file()]
    return load(built[0]) if built else None


def load(path: Path) -> ctypes.CDLL | None:
    """Load a built library, or None when it was built for another machine or from older source."""
    try:
        library = ctypes.CDLL(str(path))
        library.advance.restype = ctypes.c_int32
        library.scores.restype = None
    except (OSError, AttributeError):
        return None  # NumPy gives the same answer
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.advance.argtypes = [pointer, pointer, pointer, integer, integer, integer]
    library.scores.argtypes = [pointer, pointer, integer, pointer, integer]
    return library
