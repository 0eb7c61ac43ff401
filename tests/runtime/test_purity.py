"""What decides is pure: no sockets, clocks, randomness, logs or environment among its imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[2] / "runtime"
PURE = [
    RUNTIME / f"{name}.py"
    for name in ("config", "errors", "fact_queue", "trust", "units", "url")
]  # fmt: skip
IMPURE = {
    "aiohttp", "asyncio", "grpc", "logging", "os", "prometheus_client", "random", "secrets", "socket",
    "structlog", "threading", "time", "uuid", "uvloop",
}  # fmt: skip


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.stem)
def test_a_pure_module_imports_nothing_impure(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert not {name.partition(".")[0] for name in imported} & IMPURE
    ours = {name for name in imported if name.startswith("runtime.")}
    assert ours <= {f"runtime.{p.stem}" for p in PURE}, "a pure module leans on pure modules only"
