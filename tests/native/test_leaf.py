"""The rule for compiled code: it is a leaf, it keeps nothing, and nobody sees whether it is there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, cast

import native
from tests.native.halves import HALVES, STREAM, TWILIO_FRAME, needs_compiled

PACKAGE = Path(native.__file__).parent
SOURCE = (PACKAGE / "_speedups.c").read_text()

CALLS_OR_IMPORTS = re.compile(r"\bPy(?:Object_\w*|Eval_\w*|Import_\w*|Run_\w*|_BuildValue)\b")


PAYLOAD = b"AAEC" * 53 + b"AA=="


def test_the_source_calls_no_python_and_imports_nothing() -> None:
    used = set(CALLS_OR_IMPORTS.findall(SOURCE))
    assert used == set()
    assert set(re.findall(r"#include ([<\"]\S+)", SOURCE)) == {
        "<Python.h>", "<stdint.h>", "<string.h>"
    }  # fmt: skip


def test_pythons_half_is_pure_and_a_leaf_too() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / "_python.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert imported == {"__future__", "re", "pybase64"}


@needs_compiled
def test_it_is_built_against_the_stable_abi() -> None:
    built = [path.name for path in PACKAGE.glob("_speedups*") if path.suffix in (".so", ".pyd")]
    assert built == ["_speedups.abi3.so"] or built == ["_speedups.pyd"]
    assert ".abi3.so" in EXTENSION_SUFFIXES or os.name == "nt"


def run(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_environment_chooses_python() -> None:
    ask = "import native; print(native.COMPILED, native.read_media.__module__)"
    assert run(ask, ASHEARD_NATIVE="python") == "False native._python"


@needs_compiled
def test_the_compiled_half_runs_where_it_is_built() -> None:
    ask = "import native; print(native.COMPILED)"
    assert run(ask, ASHEARD_NATIVE="") == "True"


def test_python_takes_over_where_it_is_not_built() -> None:
    ask = (
        "import sys; sys.modules['native._speedups'] = None\n"
        "import native; print(native.COMPILED, native.append_message.__module__)"
    )
    assert run(ask, ASHEARD_NATIVE="") == "False native._python"


@needs_compiled
def test_it_keeps_nothing() -> None:
    """No reference to what it was given, and no object that it made."""
    half, text = HALVES["compiled"], TWILIO_FRAME
    odd = cast(Any, half)

    def refused(function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except TypeError:
            return
        raise AssertionError(f"{function} took {arguments}")

    asked: list[Callable[[], object]] = [
        lambda: half.read_media(text * 3, STREAM),
        lambda: half.read_media(text[:-1], STREAM),
        lambda: half.read_media(text, b"MZ"),
        lambda: half.read_text(text),
        lambda: half.read_text(text[:-1]),
        lambda: half.append_message(PAYLOAD),
        lambda: half.append_message(PAYLOAD[:-1]),
        lambda: refused(odd.append_message, "AAEC"),
        lambda: refused(odd.read_text, None),
        lambda: refused(odd.read_media, text),
        lambda: refused(odd.read_media, text, "MZ"),
        lambda: refused(odd.read_media, bytearray(text), STREAM),
    ]
    for ask in asked:
        given, times = (text, STREAM, PAYLOAD), 2000
        ask()
        references, blocks = [sys.getrefcount(one) for one in given], sys.getallocatedblocks()
        for _ in range(times):
            ask()
        assert [sys.getrefcount(one) for one in given] == references
        assert sys.getallocatedblocks() - blocks < times // 4, "what one call keeps, each keeps"
