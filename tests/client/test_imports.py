"""The client stands alone: it imports grpc, protobuf and Python's own modules, anywhere in its
code."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "asheard"
WRITTEN = [path for path in CLIENT.rglob("*.py") if path.parent.name != "v1"]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(CLIENT)))
def test_a_module_of_the_client_imports_nothing_of_the_system(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"asheard", "google", "grpc"}
