"""Everything that can go wrong, by who is to blame and what is left to do.

    AsheardError
    ├── ConfigurationError   the operator's bad value: exit status 2, names it and the fix
    ├── PeerProtocolError    Twilio, OpenAI or a tool broke its protocol: end that stream
    ├── InvalidRequest       our RPC's caller sent nonsense            INVALID_ARGUMENT
    ├── NotFound             no such call                              NOT_FOUND
    └── Unavailable          upstream or store out of reach, draining  UNAVAILABLE

A fault of our own code is an ordinary Python exception. Texts never hold secrets, speech,
telephone numbers or digits that a caller pressed.
"""

from __future__ import annotations


class AsheardError(Exception):
    """The root; never raised itself."""


class ConfigurationError(AsheardError):
    """A setting or an agent file is unusable. The text names the setting and the fix."""


class PeerProtocolError(AsheardError):
    """A peer broke its protocol. The text says what it sent, without the payload."""


class InvalidRequest(AsheardError):
    """A request to us makes no sense. The text names the field."""


class NotFound(AsheardError):
    """There is no such call."""


class Unavailable(AsheardError):
    """Something we depend on cannot be reached, or we are draining; try again later."""
