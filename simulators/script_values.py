"""What the values of a script file may be, and the error that names the key of a bad one. Pure.

A reader is a function of (value, key) that returns what the script holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from runtime.errors import ConfigurationError

Reader = Callable[[Any, str], Any]


def load(text: str, name: str) -> Mapping[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        text: The file's.
        name: Its name, for errors.

    Raises:
        ConfigurationError: It is no YAML, or no mapping.
    """
    try:
        return mapping(yaml.safe_load(text), name)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f", line {where.line + 1}"
        raise ConfigurationError(f"{name}{line}: this is not YAML") from None


def fields(
    mapping: Mapping[str, Any],
    key: str,
    known: Mapping[str, Reader],
    *,
    required: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Read a mapping of which every key is known."""
    for name in mapping:
        if name not in known:
            raise bad(f"{key}.{name}", f"is not known here; known are {', '.join(known)}")
    for name in required:
        if name not in mapping:
            raise bad(f"{key}.{name}", "is missing")
    return {name: known[name](value, f"{key}.{name}") for name, value in mapping.items()}


def made(
    make: Callable[..., Any], known: Mapping[str, Reader], *, required: tuple[str, ...] = ()
) -> Reader:
    """Something made of the fields of a mapping; what it refuses with ValueError is said."""

    def read(value: Any, key: str) -> Any:
        found = fields(mapping(value, key), key, known, required=required)
        try:
            return make(**found)
        except ValueError as error:
            raise bad(key, str(error)) from None

    return read


def mapping(value: Any, key: str) -> Mapping[str, Any]:
    """A mapping."""
    if not isinstance(value, dict):
        raise bad(key, "must be a mapping")
    return value


def anything(value: Any, key: str) -> Any:
    """Whatever YAML has."""
    return value


def optional(reader: Reader) -> Reader:
    """null, or the rest."""
    return lambda value, key: None if value is None else reader(value, key)


def listed(reader: Reader) -> Reader:
    """A list of one kind."""

    def read(value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise bad(key, "must be a list")
        return tuple(reader(entry, f"{key}[{index}]") for index, entry in enumerate(value))

    return read


def string(value: Any, key: str) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise bad(key, "must be a text")
    return value


def text(value: Any, key: str) -> str:
    """A text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise bad(key, "must be a text")
    return value


def boolean(value: Any, key: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise bad(key, "must be true or false")
    return value


def share(value: Any, key: str) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise bad(key, "must be a number from 0 to 1")
    return float(value)


def positive(value: Any, key: str) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise bad(key, "must be a number above 0")
    return float(value)


def whole(least: int | None) -> Reader:
    """A whole number, of at least so much."""

    def read(value: Any, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad(key, "must be a whole number")
        if least is not None and value < least:
            raise bad(key, f"must be at least {least}")
        return value

    return read


def choice(*values: str) -> Reader:
    """One of some words."""

    def read(value: Any, key: str) -> str:
        if value not in values:
            raise bad(key, f"must be one of {', '.join(values)}")
        return str(value)

    return read


def bad(key: str, problem: str) -> ConfigurationError:
    """The error about one key."""
    return ConfigurationError(f"{key}: {problem}")
