"""Whether a compiled part of the project was built."""

from __future__ import annotations

import shutil
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_CAN_BUILD = (
    any(map(shutil.which, ("cc", "gcc")))
    and Path(sysconfig.get_path("include"), "Python.h").is_file()
)


def needs(package: str) -> pytest.MarkDecorator:
    """Skips tests where ``_kernel`` of a package was not built and could not be.

    Where there is a compiler, one that does not compile, or cannot be used since a slot or a
    constant that it needs is gone, is no reason to skip: its tests fail.
    """
    built = any((ROOT / package / f"_kernel{suffix}").is_file() for suffix in EXTENSION_SUFFIXES)
    return pytest.mark.skipif(
        not built and not _CAN_BUILD,
        reason=f"{package}/kernel.c needs a C compiler and Python's headers",
    )
