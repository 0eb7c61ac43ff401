"""Finds the compiled way of the caller's frames, ``kernel.c``, where it was built.

It is optional: it is built when the package is installed on a machine with a C compiler and Python's
headers, and without it Python does the same with each frame, for more CPU (ADR 7).
"""

from __future__ import annotations

from gateway.turns import ReadReady


def kernel() -> ReadReady | None:
    """The compiled way, or None where it was not built; then Python does the work."""
    try:
        from gateway._kernel import read_ready
    except (ImportError, AttributeError, TypeError, ValueError):
        return None  # not built, or from older source: then a class has not the slots it knows
    return read_ready
