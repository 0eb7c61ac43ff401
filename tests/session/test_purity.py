"""What decides is pure: no sockets, clocks, randomness, logs or environment behind its imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SESSION = Path(__file__).parents[2] / "session"
REALTIME = SESSION / "realtime"
SHELLS = ("connection.py", "picows_connection.py")
PURE_OF_SESSION = ("admission", "caller_input", "latency", "outbox")
PURE = sorted(path for path in REALTIME.glob("*.py") if path.name not in SHELLS)
PURE += [SESSION / f"{name}.py" for name in PURE_OF_SESSION]
PURE += [SESSION / "notices" / "__init__.py"]
IMPURE = {
    "aiohttp", "asyncio", "grpc", "logging", "os", "random", "secrets", "socket", "structlog",
    "picows", "threading", "time", "uuid", "websockets",
}  # fmt: skip
PACKAGES = ("asheard", "gateway", "native", "runtime", "session", "transcript", "words")
PURE_OF_OURS = {
    "asheard.v1",  # messages as values
    "native",
    "runtime.errors",
    "runtime.units",
    "session.notices",  # its values; what finds and makes them is beside them
    "session.agent",  # its values; that it can read a file too is no business of the machine's
    "words.proportional",
    "words.tokenize",
    *(f"session.realtime.{path.stem}" for path in PURE if path.parent == REALTIME),
    *(f"session.{name}" for name in PURE_OF_SESSION),
}


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_a_pure_module_imports_nothing_impure(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            imported |= names if module == "session.realtime" else {module}
    assert not {name.partition(".")[0] for name in imported} & IMPURE
    ours = {n for n in imported if n.partition(".")[0] in PACKAGES}
    assert ours <= PURE_OF_OURS
