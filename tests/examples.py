"""How many examples a property is tried with: as many as it says; a few in `make test-fast`."""

from __future__ import annotations

import os

from hypothesis import settings

FAST = os.environ.get("ASHEARD_TEST_EXAMPLES") == "few"


def examples(count: int) -> int:
    """``count``, or a fortieth of it when only a few are wanted."""
    return max(5, count // 40) if FAST else count


if FAST:
    settings.register_profile("few", max_examples=examples(100))
    settings.load_profile("few")
