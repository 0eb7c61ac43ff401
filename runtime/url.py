"""URLs as people and peers write them, some of which are none."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def split_url(text: str) -> SplitResult | None:
    """The parts of a URL, of which ``hostname`` and ``port`` can be read; None: it is none.

    :func:`urllib.parse.urlsplit` raises for some texts (a bracket that is not closed, say), and
    what it returns for others raises when its port is read.
    """
    try:
        parts = urlsplit(text)
        _ = parts.hostname, parts.port  # read for what they raise
    except ValueError:
        return None
    return parts
