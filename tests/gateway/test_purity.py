"""What decides is pure: no sockets, clocks, randomness, logs or environment behind its imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

GATEWAY = Path(__file__).parents[2] / "gateway"
PURE = sorted(
    [
        *(GATEWAY / "twilio").glob("*.py"),
        *(GATEWAY / "playout").glob("*.py"),
        *(
            GATEWAY / f"{name}.py"
            for name in (
                "nonce",
                "bargein",
                "placement",
                "public_url",
                "webhook",
                "evidence",
                "lane",
                "outgoing",
                "caller_path",
                "websocket_protocol",
                "delivery",
                "presence",
                "pace",
            )
        ),
    ]
)
IMPURE = {
    "aiohttp", "asyncio", "grpc", "logging", "os", "random", "secrets", "selectors", "socket",
    "structlog", "threading", "time",
}  # fmt: skip
VALUES = {"gateway.instant"}
"""Modules whose values are pure, beside functions for shells: nothing pure imports those."""

IMPURE_OF_OURS = {"runtime.facts", "runtime.log", "runtime.metrics", "runtime.process"}


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(GATEWAY)))
def test_a_pure_module_imports_nothing_impure(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
            if node.module in VALUES:
                assert all(alias.name[0].isupper() for alias in node.names)
    assert not {name.partition(".")[0] for name in imported} & IMPURE
    assert not imported & IMPURE_OF_OURS
    ours = {name for name in imported if name.startswith("gateway.")}
    pure_names = {
        "gateway." + str(p.relative_to(GATEWAY).with_suffix("")).replace("/", ".") for p in PURE
    }
    assert ours <= pure_names | VALUES, "a pure module leans on pure modules only"
