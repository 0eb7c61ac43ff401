"""Tells :mod:`tests.system.together` which tests are to be run."""

from __future__ import annotations

import pytest

from tests.system.together import together


def pytest_collection_finish(session: pytest.Session) -> None:
    """All that were selected, with their parameters."""
    for item in session.items:
        test = getattr(getattr(item, "obj", None), "together", None)
        if test is not None:
            callspec = getattr(item, "callspec", None)
            parameters = tuple(callspec.params.items()) if callspec is not None else ()
            together.selected.append((test, parameters))
