"""asheard for those who read transcripts: which words the caller heard.

    import asheard
    with asheard.connect("transcripts.example.com:50071", token="…", tls=True) as transcripts:
        for turn in transcripts.get("CA…").turns:
            print(turn.heard_text)

client    a typed client of ``asheard.v1.TranscriptService``; :func:`connect` opens one
timeline  a call's turns and the silences between them, in order
errors    what can go wrong
config    the settings of the commands
commands  ``asheard get``, ``watch``, ``calls``, ``check-heard``
v1        the wire: messages and stubs, generated from ``proto/asheard``

It needs grpcio and protobuf, and nothing of the system that writes the transcripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asheard.client import Client as Client
    from asheard.client import connect as connect

__version__ = "0.1.0"

__all__ = ["Client", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    # gRPC is loaded when somebody connects: who wants the version or an error needs none of it.
    if name in ("Client", "connect"):
        from asheard import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
