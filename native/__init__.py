"""What costs most of each frame, as pure functions: compiled where it was built, otherwise in Python.

Bytes and numbers in, bytes and numbers out; ``README.md`` has the rule, ``_python.py`` says what each
function does. Nothing but the price depends on which half runs. ``ASHEARD_NATIVE=python`` in the
environment chooses Python's.
"""

from __future__ import annotations

import os

from native._python import append_message, read_media, read_text

__all__ = ["COMPILED", "append_message", "read_media", "read_text"]

COMPILED = False
"""Whether the compiled half runs."""

if os.environ.get("ASHEARD_NATIVE") != "python":
    try:
        from native._speedups import append_message, read_media, read_text

        COMPILED = True
    except ImportError:
        pass  # not built
