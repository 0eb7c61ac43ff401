"""Reads of an odd event what is needed. Pure.

The strict decoder is quick, and refuses an event for any field that is not as it was published.
What it refused comes here: fields that can be read are taken, those that cannot count as absent,
and only a field that must be there (an id) makes the event unreadable. So a ``response.done`` whose
error is a string still ends its response.

A number may come as a float or as text. An object in place of the text of ``arguments`` is taken as
its JSON. An element of a list that cannot be read is left out, or is an empty one where its place
says what it is. Text can always be encoded: a lone surrogate becomes a question mark.
"""

from __future__ import annotations

import functools
import json
import math
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T", bound=msgspec.Struct)

_MAX_NUMBER_CHARS = 32
"""Characters of a number that comes as text."""


class UnreadableError(ValueError):
    """Something that must be there is not, or cannot be read; the text names it, not its value."""


class _BeyondError(Exception):
    """A number beyond its bounds, which must not be taken for another."""


def parse(data: bytes | str) -> object:
    """JSON as plain values, also where its text is not quite UTF-8.

    Raises:
        UnreadableError: It is no JSON, or nested too deeply.
    """
    text = data if isinstance(data, str) else data.decode("utf-8", errors="replace")
    try:
        value: object = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is not JSON that can be read") from error
    return value


def read(kind: type[T], raw: dict[str, Any]) -> T:
    """An event or a part of one from plain values.

    Args:
        kind: What it should be.
        raw: Plain values, as of :func:`parse`.

    Raises:
        UnreadableError: A field that must be there is not, or a number is beyond its bounds.
    """
    try:
        return _struct(kind, raw)
    except _BeyondError as error:
        raise UnreadableError(f"{error} is beyond its bounds") from error


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    described = inspect.type_info(kind)
    if not isinstance(described, inspect.StructType):
        raise TypeError(f"{kind} is no struct")
    return described.fields


def _struct(kind: type[T], raw: object) -> T:
    if not isinstance(raw, dict):
        from_odd = getattr(kind, "from_odd", None)
        if from_odd is None:
            raise UnreadableError(kind.__name__)
        found: T = from_odd(raw)
        return found
    values: dict[str, Any] = {}
    for described in _fields(kind):
        name = described.encode_name
        if name in raw:
            try:
                values[described.name] = _value(described.type, raw[name], name)
                continue
            except UnreadableError:
                pass
        if described.required:
            raise UnreadableError(name)
    return kind(**values)


def _value(described: inspect.Type, raw: object, name: str) -> Any:
    match described:
        case inspect.UnionType():
            return _one_of(described.types, raw, name)
        case inspect.NoneType():
            if raw is None:
                return None
        case inspect.StrType():
            return _text(described, raw, name)
        case inspect.IntType():
            return _integer(described, raw, name)
        case inspect.FloatType():
            return _number(raw, name)
        case inspect.ListType():
            if isinstance(raw, list):
                return _list(described.item_type, raw, name)
        case inspect.StructType():
            return _struct(described.cls, raw)
        case inspect.AnyType():
            return raw
    raise UnreadableError(name)


def _one_of(kinds: tuple[inspect.Type, ...], raw: object, name: str) -> Any:
    """As the kind that it is; else as the first that it can be read as."""
    own = _OWN.get(type(raw))
    for described in sorted(kinds, key=lambda kind: type(kind) is not own):
        try:
            return _value(described, raw, name)
        except UnreadableError:
            continue
    raise UnreadableError(name)


_OWN: dict[type, type[inspect.Type]] = {
    str: inspect.StrType,
    int: inspect.IntType,
    float: inspect.FloatType,
    dict: inspect.StructType,
    type(None): inspect.NoneType,
}


def _text(described: inspect.StrType, raw: object, name: str) -> str:
    if isinstance(raw, str):
        text = raw if raw.isascii() else raw.encode("utf-8", errors="replace").decode()
    elif isinstance(raw, int | float) and not isinstance(raw, bool):
        text = str(raw)
    elif isinstance(raw, dict) and name == "arguments":
        text = json.dumps(raw)
    else:
        raise UnreadableError(name)
    if described.min_length is not None and len(text) < described.min_length:
        raise UnreadableError(name)
    if described.max_length is not None and len(text) > described.max_length:
        raise UnreadableError(name)
    return text


def _integer(described: inspect.IntType, raw: object, name: str) -> int:
    number = raw if isinstance(raw, int) and not isinstance(raw, bool) else int(_number(raw, name))
    if described.ge is not None and number < described.ge:
        raise _BeyondError(name)
    if described.lt is not None and number >= described.lt:
        raise _BeyondError(name)
    return number


def _number(raw: object, name: str) -> float:
    if isinstance(raw, bool):
        raise UnreadableError(name)
    if isinstance(raw, int | float) or (isinstance(raw, str) and len(raw) <= _MAX_NUMBER_CHARS):
        try:
            number = float(raw)
        except (ValueError, OverflowError) as error:
            raise UnreadableError(name) from error
        if math.isfinite(number):
            return number
    raise UnreadableError(name)


def _list(described: inspect.Type, raw: list[object], name: str) -> list[Any]:
    found: list[Any] = []
    for element in raw:
        try:
            found.append(_value(described, element, name))
        except UnreadableError:
            if isinstance(described, inspect.StructType) and not any(
                field.required for field in described.fields
            ):
                found.append(described.cls())  # what follows keeps its place
    return found


def _no_constant(_name: str) -> None:
    raise ValueError("not a number")
