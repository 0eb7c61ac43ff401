"""The memory that Python and the compiled loops share: rows of tables, and what points to them.

``kernel.c`` has the same structs and exports the same numbers. A library that was built from other
source differs in them, and is not used (:func:`words.aligner.kernel.load`).
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int32, c_void_p

from words.aligner.model import STATES, STREAM_SIZE

KEPT_GAUSSIANS = 64
"""Gaussians kept of each codebook's 128: nine tenths of the weight, half of the work."""

GARBAGE_RANK = 6
"""The garbage column scores as the sixth best phone: sounds that no phone of the text fits prefer
it, speech that fits its text does not."""


class PhoneRow(ctypes.Structure):
    """A phone, from one junction to another."""

    _fields_ = [
        ("columns", c_int32 * STATES), ("source", c_int32), ("target", c_int32), ("duration", c_int32),
    ]  # fmt: skip


class WeightsRow(ctypes.Structure):
    """Of a phone: what is added on entering, and on each move to a next state."""

    _fields_ = [("entry", c_double), ("move", c_double)]


class JunctionRow(ctypes.Structure):
    """First and last phone entered from a junction, and the first jump that starts there or later."""

    _fields_ = [("first_out", c_int32), ("last_out", c_int32), ("first_jump", c_int32)]


class JumpRow(ctypes.Structure):
    """A way from one junction to a later one."""

    _fields_ = [("source", c_int32), ("target", c_int32)]


class CameRow(ctypes.Structure):
    """Of each state of a phone: the record before it, and the frame it was entered at."""

    _fields_ = [("record", c_int32 * STATES), ("entered", c_int32 * STATES)]


class CameToRow(ctypes.Structure):
    """The record before a junction, and scratch."""

    _fields_ = [("record", c_int32), ("phone", c_int32)]


class RecordRow(ctypes.Structure):
    """A path left a phone."""

    _fields_ = [("phone", c_int32), ("start", c_int32), ("end", c_int32), ("before", c_int32)]


class Graph(ctypes.Structure):
    """The graph of a search, for one call of ``advance``."""

    _fields_ = (
        [(name, c_void_p) for name in (
            "phones", "weights", "junctions", "jumps", "jump_weights", "durations")]
        + [(name, c_int32) for name in ("n_phones", "n_junctions", "n_jumps", "n_durations")]
    )  # fmt: skip


class State(ctypes.Structure):
    """The paths of a search, for one call of ``advance``."""

    _fields_ = (
        [(name, c_void_p) for name in (
            "score", "came", "junction_score", "junction_came", "records")]
        + [(name, c_int32) for name in (
            "n_records", "record_capacity", "low", "high", "junction_low", "junction_high")]
        + [("beam", c_double), ("best", c_double)]
    )  # fmt: skip


class Model(ctypes.Structure):
    """The mixtures of Gaussians that ``scores`` computes."""

    _fields_ = [
        ("matrix", c_void_p), ("constant", c_void_p), ("weights", c_void_p), ("kind", c_void_p),
        ("n_phones", c_int32), ("scale", c_float),
    ]  # fmt: skip


def numbers() -> list[int]:
    """How many numbers there are, the constants, and of each struct its size and where its fields are."""
    layout = [STATES, KEPT_GAUSSIANS, GARBAGE_RANK, STREAM_SIZE]
    for struct in (
        PhoneRow, WeightsRow, JunctionRow, JumpRow, CameRow, CameToRow, RecordRow, Graph, State, Model,
    ):  # fmt: skip
        layout.append(ctypes.sizeof(struct))
        layout += (getattr(struct, name).offset for name, *_ in struct._fields_)
    return [len(layout) + 1, *layout]
