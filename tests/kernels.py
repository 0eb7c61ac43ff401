"""Whether a compiled part of the project was built."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def needs(package: str) -> pytest.MarkDecorator:
    """Skips tests where ``_kernel`` of a package was not built.

    One that was built and cannot be used, since a slot or a constant that it needs is gone, is no
    reason to skip.
    """
    built = any((ROOT / package / f"_kernel{suffix}").is_file() for suffix in EXTENSION_SUFFIXES)
    return pytest.mark.skipif(
        not built, reason=f"{package}/kernel.c was not built: no C compiler, or no Python headers"
    )
