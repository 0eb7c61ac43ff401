"""Generates the stubs in ``asheard/v1`` from ``proto/``: ``python proto/generate.py OUT_DIR``.

The plugins are those of the lock file, called by their own paths, so that a stray protoc on the
machine cannot put the committed stubs out of step.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROTO = Path(__file__).resolve().parent


def generate(out: Path) -> int:
    """Write messages, services and their type stubs below ``out``; the exit status of protoc."""
    import grpc_tools
    from grpc_tools import protoc

    well_known_types = Path(grpc_tools.__file__).parent / "_proto"
    bin_dir = Path(sys.executable).parent
    protos = sorted(PROTO.rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={PROTO}",
        f"--proto_path={well_known_types}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *(str(proto.relative_to(PROTO)) for proto in protos),
    ]
    return int(protoc.main(arguments))


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1])))
