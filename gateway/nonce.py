"""The one-time password between the TwiML and the stream.

The signed webhook mints a nonce, Twilio carries it in a ``<Parameter>``, and ``start`` must bring
it back for the same call. A nonce is ``<expiry>.<random>.<HMAC-SHA256 over call, expiry, random>``,
so that any replica with the same auth token can check one that another replica minted. That it is
used once is known only within a process: a thief would have to reach another replica within the
minute, for the same call, which has a stream already.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

LIFETIME_S = 60
"""Twilio opens the socket within a second or two of the TwiML; a minute forgives slow networks."""

RANDOM_BYTES = 12
"""96 bits: no two nonces are alike."""


def mint(secret: str, call_sid: str, *, now_s: int, random: bytes) -> str:
    """Make a nonce for a call.

    Args:
        secret: The auth token.
        call_sid: The call that it is good for.
        now_s: Unix time, in seconds.
        random: :data:`RANDOM_BYTES` random bytes.
    """
    expiry = str(now_s + LIFETIME_S)
    salt = base64.urlsafe_b64encode(random).decode()
    return f"{expiry}.{salt}.{_mac(secret, call_sid, expiry, salt)}"


class NonceChecker:
    """Checks nonces, and remembers those that were used until they expire.

    Args:
        secret: The auth token.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._used: dict[str, int] = {}

    def fault(self, nonce: str, call_sid: str, *, now_s: int) -> str | None:
        """What is wrong with a nonce; None when it is good, and from then on used.

        Args:
            nonce: As ``start`` brought it; empty when it brought none.
            call_sid: The call that ``start`` names.
            now_s: Unix time, in seconds.
        """
        if not nonce:
            return "the nonce is missing"
        expiry, _, rest = nonce.partition(".")
        salt, _, mac = rest.partition(".")
        expected = _mac(self._secret, call_sid, expiry, salt)
        if not hmac.compare_digest(mac.encode(), expected.encode()):
            return "the nonce is not ours, or of another call"
        if int(expiry) < now_s:
            return "the nonce has expired"
        if nonce in self._used:
            return "the nonce was used before"
        self._forget_expired(now_s)
        self._used[nonce] = int(expiry)
        return None

    @property
    def remembered(self) -> int:
        """How many used nonces are kept, so that none is taken twice."""
        return len(self._used)

    def _forget_expired(self, now_s: int) -> None:
        # Insertion order is nearly expiry order, so that looking at the oldest is enough.
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] >= now_s:
                return
            del self._used[oldest]


def _mac(secret: str, call_sid: str, expiry: str, salt: str) -> str:
    # The lengths keep apart what the peer may have glued together otherwise.
    parts = (call_sid, expiry, salt)
    text = "asheard nonce" + "".join(f"\n{len(part)}:{part}" for part in parts)
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
