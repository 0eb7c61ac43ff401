"""What can go wrong for those who read transcripts, by who is to blame.

    AsheardError
    ├── ConfigurationError   a bad setting: the text names it and the fix
    ├── InvalidRequest       the request makes no sense                INVALID_ARGUMENT
    ├── NotFound             no such call                              NOT_FOUND
    ├── Unauthenticated      no token, or not a valid one              UNAUTHENTICATED
    ├── PermissionDenied     the token has not the scope for it        PERMISSION_DENIED
    ├── Unavailable          no answer: try again later                UNAVAILABLE, DEADLINE_EXCEEDED
    └── ServiceFailed        a fault of the service                    any other status

Texts never hold secrets, speech, telephone numbers or digits that a caller pressed.
"""

from __future__ import annotations


class AsheardError(Exception):
    """The root; never raised itself."""


class ConfigurationError(AsheardError):
    """A setting is unusable. The text names the setting and the fix."""


class InvalidRequest(AsheardError):
    """A request makes no sense. The text names the field."""


class NotFound(AsheardError):
    """There is no such call."""


class Unauthenticated(AsheardError):
    """The service asks for a token, or does not know this one."""


class PermissionDenied(AsheardError):
    """The token may not do this. The text names the scope that it lacks."""


class Unavailable(AsheardError):
    """Something cannot be reached, or is draining; try again later."""


class ServiceFailed(AsheardError):
    """The service failed, for a reason that is neither ours nor the network's."""
