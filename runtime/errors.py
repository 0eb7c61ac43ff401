"""Everything that can go wrong, by who is to blame and what is left to do.

    AsheardError
    ├── ConfigurationError   the operator's bad value: exit status 2, names it and the fix
    ├── PeerProtocolError    Twilio, OpenAI or a tool broke its protocol: end that stream
    ├── InvalidRequest       our RPC's caller sent nonsense            INVALID_ARGUMENT
    ├── NotFound             no such call                              NOT_FOUND
    └── Unavailable          upstream or store out of reach, draining  UNAVAILABLE

A fault of our own code is an ordinary Python exception. Texts never hold secrets, speech,
telephone numbers or digits that a caller pressed. What a client meets as well is defined in
:mod:`asheard.errors`.
"""

from __future__ import annotations

from asheard.errors import AsheardError as AsheardError
from asheard.errors import ConfigurationError as ConfigurationError
from asheard.errors import InvalidRequest as InvalidRequest
from asheard.errors import NotFound as NotFound
from asheard.errors import Unavailable as Unavailable


class PeerProtocolError(AsheardError):
    """A peer broke its protocol. The text says what it sent, without the payload."""
