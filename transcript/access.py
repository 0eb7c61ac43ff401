"""Who may read transcripts, over gRPC and in the viewer alike.

With tokens configured, whoever bears one of them. Without, only peers on this machine's loopback,
so that a newcomer can look at a first call and nobody else can.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import unquote

from runtime.config import is_loopback
from runtime.errors import AsheardError


class Unauthenticated(AsheardError):
    """The reader bears no valid token."""


class PermissionDenied(AsheardError):
    """There are no tokens, and the reader is not on loopback."""


class Access:
    """Decides by tokens, or by the peer's address when there are none.

    Args:
        tokens: ASHEARD_API_TOKENS; empty: loopback peers only.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        # Digests are of one length: comparing them tells nothing about that of a token.
        self._digests = [_digest(token) for token in tokens]
        self._passes = [_pass(token) for token in tokens]

    @property
    def by_token(self) -> bool:
        """Whether readers need a token."""
        return bool(self._digests)

    def admit(self, authorization: str | None, host: str) -> None:
        """Let a reader pass.

        Args:
            authorization: ``Bearer TOKEN``; None when the request has no such header.
            host: Address of the peer, without its port.

        Raises:
            Unauthenticated: A token is needed, and this is none of ours.
            PermissionDenied: No tokens are configured, and the peer is not on loopback.
        """
        if not self.by_token:
            if not is_loopback(host.removeprefix("::ffff:")):
                raise PermissionDenied(
                    "Only readers on this machine are served; set ASHEARD_API_TOKENS for others"
                )
            return
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("authorization: send `Bearer TOKEN`, one of ASHEARD_API_TOKENS")
        if not self.knows(token.strip()):
            raise Unauthenticated("authorization: this token is not one of ASHEARD_API_TOKENS")

    def knows(self, token: str) -> bool:
        """Whether this is one of the tokens; takes the same time whichever it is."""
        digest = _digest(token)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    def issue_pass(self, token: str) -> str:
        """What a browser keeps instead of the token, valid as long as the token is."""
        return _pass(token)

    def knows_pass(self, value: str) -> bool:
        """Whether :meth:`issue_pass` made this of one of the tokens."""
        given = value.encode()
        return sum(hmac.compare_digest(given, known.encode()) for known in self._passes) > 0


def peer_host(peer: str) -> str:
    """The address in gRPC's name of a peer: ``ipv4:127.0.0.1:4711`` or ``ipv6:%5B::1%5D:4711``.

    Everything else, such as ``unix:``, is nobody we know, and so "".
    """
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].removeprefix("[").removesuffix("]")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _pass(token: str) -> str:
    return hmac.new(token.encode(), b"asheard viewer", hashlib.sha256).hexdigest()
