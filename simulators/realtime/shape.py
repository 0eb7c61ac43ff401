"""A small language for the shape of client events: what each field may hold. Pure.

A shape is a function of (value, path) that returns nothing and raises
:class:`~simulators.realtime.errors.ClientError` with the API's code for what is wrong, naming the
path as the API does (``session.audio.input.format``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from simulators.realtime.errors import ClientError, invalid, missing, unknown, wrong_type

Shape = Callable[[Any, str], None]


def string(*, longest: int | None = None) -> Shape:
    """A string."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, str):
            raise wrong_type(path, "a string", value)
        if longest is not None and len(value) > longest:
            raise ClientError(
                "string_above_max_length",
                f"Invalid '{path}': string too long. Expected a string with maximum length "
                f"{longest}, but got a string with length {len(value)} instead.",
                path,
            )

    return check


def one_of(*values: str) -> Shape:
    """One of some strings."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, str):
            raise wrong_type(path, "a string", value)
        if value not in values:
            known = " and ".join(f"'{v}'" for v in values)
            raise invalid(path, f"Invalid value: '{value}'. Supported values are: {known}.")

    return check


def boolean(value: Any, path: str) -> None:
    """true or false."""
    if not isinstance(value, bool):
        raise wrong_type(path, "a boolean", value)


def number(low: float, high: float, *, whole: bool = False) -> Shape:
    """A number within bounds, both included."""

    def check(value: Any, path: str) -> None:
        expected = "an integer" if whole else "a decimal"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise wrong_type(path, expected, value)
        if not low <= value <= high:
            kind = "integer" if whole else "decimal"
            side, bound = ("below minimum", low) if value < low else ("above maximum", high)
            raise invalid(
                path,
                f"Invalid '{path}': {kind} {side} value. "
                f"Expected a value {'>=' if value < low else '<='} {bound}, "
                f"but got {value} instead.",
            )

    return check


def anything(value: Any, path: str) -> None:
    """Whatever JSON has."""


def free_object(value: Any, path: str) -> None:
    """An object with any fields."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)


def nullable(shape: Shape) -> Shape:
    """null, or the shape."""

    def check(value: Any, path: str) -> None:
        if value is not None:
            shape(value, path)

    return check


def either(*shapes: Shape) -> Shape:
    """Any of some shapes; the last one's complaint stands."""

    def check(value: Any, path: str) -> None:
        for shape in shapes[:-1]:
            try:
                return shape(value, path)
            except ClientError:
                continue
        shapes[-1](value, path)

    return check


def array(shape: Shape, *, longest: int | None = None) -> Shape:
    """A list of one shape."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise wrong_type(path, "an array", value)
        if longest is not None and len(value) > longest:
            raise invalid(path, f"Invalid '{path}': at most {longest} are supported.")
        for index, entry in enumerate(value):
            shape(entry, f"{path}[{index}]")

    return check


def fields(known: Mapping[str, Shape], *, required: tuple[str, ...] = ()) -> Shape:
    """An object with these fields and no others."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        prefix = f"{path}." if path else ""
        for name in required:
            if name not in value:
                raise missing(prefix + name)
        for name, entry in value.items():
            shape = known.get(name)
            if shape is None:
                raise unknown(prefix + name)
            shape(entry, prefix + name)

    return check


def by_type(known: Mapping[str, Shape]) -> Shape:
    """An object whose ``type`` says which shape it has."""
    kinds = one_of(*known)

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        if "type" not in value:
            raise missing(f"{path}.type")
        kinds(value["type"], f"{path}.type")
        known[value["type"]](value, path)

    return check
