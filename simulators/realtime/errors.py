"""Errors of the Realtime API, as its ``error`` event carries them."""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """The client's event was refused; the session goes on.

    ``code`` and ``param`` are the ones of the event's ``error`` object, None where the API sends
    null.
    """

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.names_event = True
        """The error bears the event's ``event_id``, if that has one."""


def unknown(param: str) -> ClientError:
    """A field the API does not know."""
    return ClientError("unknown_parameter", f"Unknown parameter: '{param}'.", param)


def missing(param: str) -> ClientError:
    """A required field that is not there."""
    return ClientError(
        "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    )


def wrong_type(param: str, expected: str, value: Any) -> ClientError:
    """A field of the wrong JSON type."""
    return ClientError(
        "invalid_type",
        f"Invalid type for '{param}': expected {expected}, but got {_kind(value)} instead.",
        param,
    )


def invalid(param: str, message: str) -> ClientError:
    """A field with a value the API does not take."""
    return ClientError("invalid_value", message, param)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
