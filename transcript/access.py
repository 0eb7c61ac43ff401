"""Who may read transcripts and delete them, over gRPC and in the viewer alike.

With tokens configured, whoever bears one of them, within its scopes. Without, only peers on this
machine's loopback, and those everything: a newcomer can look at a first call and nobody else can.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import unquote

from asheard.config import ApiToken, Scope
from runtime.config import is_loopback
from runtime.errors import AsheardError


class Unauthenticated(AsheardError):
    """The peer bears no valid token."""


class PermissionDenied(AsheardError):
    """The token lacks a scope; or there are no tokens, and the peer is not on loopback."""


class Access:
    """Decides by tokens, or by the peer's address when there are none.

    Args:
        tokens: ASHEARD_API_TOKENS; empty: loopback peers only.
    """

    def __init__(self, tokens: Iterable[ApiToken] = ()) -> None:
        tokens = tuple(tokens)
        # Digests are of one length: comparing them tells nothing about that of a token.
        self._scopes = [(_digest(entry.token), entry.scopes) for entry in tokens]
        self._passes = [_pass(entry.token) for entry in tokens if Scope.READ in entry.scopes]

    @property
    def by_token(self) -> bool:
        """Whether readers need a token."""
        return bool(self._scopes)

    def admit(self, authorization: str | None, host: str, scope: Scope = Scope.READ) -> None:
        """Let a peer pass.

        Args:
            authorization: ``Bearer TOKEN``; None when the request has no such header.
            host: Address of the peer, without its port.
            scope: What it wants to do.

        Raises:
            Unauthenticated: A token is needed, and this is none of ours.
            PermissionDenied: The token lacks the scope; or no tokens are configured, and the peer
                is not on loopback.
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
        scopes = self._scopes_of(token.strip())
        if scopes is None:
            raise Unauthenticated("authorization: this token is not one of ASHEARD_API_TOKENS")
        if scope not in scopes:
            raise PermissionDenied(
                f"This token lacks the scope `{scope}`: its entry in ASHEARD_API_TOKENS must be "
                f"TOKEN:{'+'.join(sorted({*scopes, scope}))}"
            )

    def may_read(self, token: str) -> bool:
        """Whether this is one of the tokens and has that scope."""
        return Scope.READ in (self._scopes_of(token) or ())

    def _scopes_of(self, token: str) -> frozenset[Scope] | None:
        """What the bearer may do, None for a stranger; takes the same time for any wrong token."""
        digest = _digest(token)
        found = [scopes for known, scopes in self._scopes if hmac.compare_digest(digest, known)]
        return frozenset().union(*found) if found else None

    def issue_pass(self, token: str) -> str:
        """What a browser keeps instead of the token, valid as long as the token is."""
        return _pass(token)

    def knows_pass(self, value: str) -> bool:
        """Whether :meth:`issue_pass` made this of one of the tokens that may read."""
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
