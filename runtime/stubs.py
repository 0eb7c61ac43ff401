"""Generates the stubs in ``asheard/v1`` from ``proto/``: ``python -m runtime.stubs OUT_DIR``.

The plugins are those of the lock file, called by their own paths, so that a stray protoc on the
machine cannot put the committed stubs out of step.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def generate(out: Path) -> int:
    """Write messages, services and their type stubs below ``out``; the exit status of protoc."""
    import grpc_tools
    from grpc_tools import _protoc_compiler

    well_known_types = Path(grpc_tools.__file__).parent / "_proto"
    bin_dir = Path(sys.executable).parent
    protos = sorted((ROOT / "proto").rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={ROOT / 'proto'}",
        f"--proto_path={well_known_types}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *(str(proto.relative_to(ROOT / "proto")) for proto in protos),
    ]
    return int(_protoc_compiler.run_main([a.encode() for a in arguments]))


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1])))
