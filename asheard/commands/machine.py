"""Messages as JSON: the names of the contract, whole numbers as numbers, every field present.

Protobuf's own mapping writes 64-bit integers as strings, for the sake of readers that keep all
numbers as doubles; ours stay far below 2^53. What this writes, protobuf's parsers read.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

_WIDE = (
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
)


def to_json(message: Message, *, indent: int | None = None) -> str:
    """One JSON object."""
    value = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _with_numbers(value, message.DESCRIPTOR)
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _with_numbers(value: dict[str, Any], descriptor: Any) -> None:
    """Turn strings of wide integers into numbers, in place; any kind of protobuf's descriptors."""
    for name, inner in value.items():
        field = descriptor.fields_by_name[name]
        if field.type in _WIDE:
            value[name] = [int(n) for n in inner] if isinstance(inner, list) else int(inner)
        elif field.message_type is not None:
            for message in inner if isinstance(inner, list) else [inner]:
                if isinstance(message, dict):  # a Timestamp is a string
                    _with_numbers(message, field.message_type)
