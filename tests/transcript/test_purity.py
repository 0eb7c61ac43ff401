"""What decides is pure: no sockets, clocks, randomness, logs or environment among its imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TRANSCRIPT = Path(__file__).parents[2] / "transcript"
PURE = sorted(
    [
        *(TRANSCRIPT / "join").glob("*.py"),
        *(
            TRANSCRIPT / f"{name}.py"
            for name in (
                "access", "closing", "facts", "listing", "pages", "passages", "store", "unsealed"
            )
        ),
    ]
)  # fmt: skip
"""``store`` is what a store owes, and the values that it takes and gives."""

IMPURE = {
    "aiohttp", "asyncio", "grpc", "logging", "os", "psycopg", "queue", "random", "secrets", "socket",
    "sqlite3", "structlog", "threading", "time",
}  # fmt: skip
IMPURE_OF_OURS = {"runtime.facts", "runtime.log", "runtime.metrics", "runtime.process"}


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(TRANSCRIPT)))
def test_a_pure_module_imports_nothing_impure(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert not {name.partition(".")[0] for name in imported} & IMPURE
    assert not imported & IMPURE_OF_OURS
    ours = {name for name in imported if name.startswith("transcript.")}
    assert ours <= {_name(path) for path in PURE}, "a pure module leans on pure modules only"


def _name(path: Path) -> str:
    parts = path.relative_to(TRANSCRIPT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")
