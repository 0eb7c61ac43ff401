"""Viterbi search through a graph of phones, frame by frame, over text and audio that still grow.

The graph has *phones* and *junctions*. A phone leads from one junction to another and is made of
three states; a path stays in a state or moves on to the next each frame. A *jump* leads from one
junction to a later one and takes no time: what is optional is jumped over. Words that may be read in
several ways are parallel chains of phones between the same two junctions.

Costs, all natural logarithms, added up along a path:

* in each frame the acoustic score of the state (scaled down, since neighbouring frames are not
  independent),
* for entering a phone its entry weight (what a pause or a skipped word costs),
* for each move to the next state the move weight. It evens out paths with many and with few phones:
  without it a path that stops in an early word would win against one that said more,
* for leaving a phone the cost of having been in it for so many frames, from the duration table.

A path that falls behind the best one by more than the beam is dropped, so work a frame does not grow
with the text, and what all surviving paths share can no longer change. For each phone a surviving
path leaves, one *record* is kept (phone, start, end, the record before); the alignment is read back
along the records.

The loop runs in C when the little library beside this file was built (``kernel.c``), and in NumPy
otherwise: same numbers, about ten times slower.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from words.aligner.kernel import kernel

NEVER = -1e30
"""Score of a path that does not exist."""

BEAM = 90.0
"""Paths this far behind the best are dropped. Found by widening until no word time changed."""

_FIRST_RECORDS = 4096


class _Array:
    """A NumPy array that grows at its end, doubling its room."""

    def __init__(self, dtype: Any, fill: float, *tail: int) -> None:
        self._fill = fill
        self.size = 0
        self.room = np.full((64, *tail), fill, dtype)

    def append(self, value: Any) -> None:
        """Add one row."""
        if self.size == len(self.room):
            self.room = np.concatenate([self.room, np.full_like(self.room, self._fill)])
        self.room[self.size] = value
        self.size += 1

    def grow_to(self, size: int) -> None:
        """Add rows of the fill value until there are so many."""
        while size > len(self.room):
            self.room = np.concatenate([self.room, np.full_like(self.room, self._fill)])
        self.size = max(self.size, size)

    @property
    def view(self) -> npt.NDArray[Any]:
        """The rows in use."""
        return self.room[: self.size]


@dataclass(frozen=True, slots=True)
class Record:
    """A path left a phone."""

    phone: int
    start: int
    """Frame it entered at."""

    end: int
    """Frame it left at, exclusive."""


class PhoneGraph:
    """Phones between junctions; only ever grows at its end."""

    def __init__(self) -> None:
        self.columns = _Array(np.int32, 0, 3)
        self.source = _Array(np.int32, 0)
        self.target = _Array(np.int32, 0)
        self.entry_weight = _Array(np.float64, 0.0)
        self.move_weight = _Array(np.float64, 0.0)
        self.duration = _Array(np.int32, 0)
        self.first_out = _Array(np.int32, 0)
        self.last_out = _Array(np.int32, 0)
        self.jump_from = _Array(np.int32, 0)
        self.jump_to = _Array(np.int32, 0)
        self.jump_weight = _Array(np.float64, 0.0)

    @property
    def n_phones(self) -> int:
        """How many phones there are."""
        return self.source.size

    @property
    def n_junctions(self) -> int:
        """How many junctions there are."""
        return self.first_out.size

    @property
    def n_jumps(self) -> int:
        """How many jumps there are."""
        return self.jump_from.size

    def junction(self) -> int:
        """Add a junction and return its number. Junctions ascend from the text's start to its end."""
        self.first_out.append(np.iinfo(np.int32).max)
        self.last_out.append(-1)
        return self.n_junctions - 1

    def phone(
        self,
        columns: npt.ArrayLike,
        source: int,
        target: int,
        *,
        entry_weight: float = 0.0,
        move_weight: float = 0.0,
        duration: int = 0,
    ) -> int:
        """Add a phone and return its number."""
        number = self.n_phones
        self.columns.append(columns)
        self.source.append(source)
        self.target.append(target)
        self.entry_weight.append(entry_weight)
        self.move_weight.append(move_weight)
        self.duration.append(duration)
        self.first_out.room[source] = min(int(self.first_out.room[source]), number)
        self.last_out.room[source] = max(int(self.last_out.room[source]), number)
        return number

    def jump(self, source: int, target: int, weight: float) -> None:
        """Let paths pass from one junction to a later one, in no time.

        Raises:
            ValueError: The jump leads backwards, or starts before one that was added earlier.
        """
        if target <= source:
            raise ValueError(f"a jump must lead forward, got {source} to {target}")
        if self.jump_from.size and int(self.jump_from.view[-1]) > source:
            raise ValueError("jumps must be added in ascending order of where they start")
        self.jump_from.append(source)
        self.jump_to.append(target)
        self.jump_weight.append(weight)


class Search:
    """All surviving paths through a graph up to one frame."""

    def __init__(self, graph: PhoneGraph, durations: npt.NDArray[np.float64], start: int) -> None:
        """Start at a junction.

        Args:
            graph: May grow between calls of :meth:`advance`.
            durations: Shape (rows, frames): what leaving after so many frames adds.
            start: The junction where every path begins.
        """
        self.graph = graph
        self.durations = np.ascontiguousarray(durations, np.float64)
        self.frame = 0
        self.best = 0.0
        self.low, self.high = 0, 0
        self._score = _Array(np.float64, NEVER, 3)
        self._record = _Array(np.int32, -1, 3)
        self._entered = _Array(np.int32, 0, 3)
        self._junction_score = _Array(np.float64, NEVER)
        self._junction_record = _Array(np.int32, -1)
        self._junction_phone = _Array(np.int32, -1)
        self._records = np.zeros((4, _FIRST_RECORDS), np.int32)
        self._n_records = 0
        self._start = start
        self._follow_graph()
        self._junction_score.room[start] = 0.0
        self._jump_from_start(0)

    def _follow_graph(self) -> None:
        """Make room for what was added to the graph."""
        for by_phone in (self._score, self._record, self._entered):
            by_phone.grow_to(self.graph.n_phones)
        for by_junction in (self._junction_score, self._junction_record, self._junction_phone):
            by_junction.grow_to(self.graph.n_junctions)

    def _jump_from_start(self, first_jump: int) -> None:
        """Carry junction scores over jumps, from one jump on."""
        g, score, record = self.graph, self._junction_score.room, self._junction_record.room
        for i in range(first_jump, g.jump_from.size):
            a, b = g.jump_from.room[i], g.jump_to.room[i]
            reached = score[a] + g.jump_weight.room[i]
            if score[a] > NEVER and reached > score[b]:
                score[b] = reached
                record[b] = record[a]
        self._wake()

    def _wake(self) -> None:
        """Let phones that can be entered in the next frame be looked at."""
        g = self.graph
        alive = np.flatnonzero(
            (self._junction_score.view > NEVER) & (g.last_out.view >= g.first_out.view)
        )
        if len(alive):
            first, last = int(g.first_out.view[alive].min()), int(g.last_out.view[alive].max())
            empty = self.low >= self.high
            self.low = first if empty else min(self.low, first)
            self.high = last + 1 if empty else max(self.high, last + 1)

    def graph_grew(self, first_jump: int) -> None:
        """Take in phones, junctions and jumps that were added; ``first_jump`` is the first new."""
        self._follow_graph()
        self._jump_from_start(first_jump)

    def advance(self, scores: npt.NDArray[np.float32]) -> None:
        """Follow the paths over more frames, shape (frames, columns)."""
        scores = np.ascontiguousarray(scores, np.float32)
        done = 0
        library = kernel()
        while done < len(scores):
            self._make_room_for_records()
            if library is None:
                done += self._advance_numpy(scores[done:])
            else:
                done += self._advance_c(library, scores[done:])

    def _make_room_for_records(self) -> None:
        if self._n_records + self.graph.n_junctions >= self._records.shape[1] // 2:
            more = np.zeros((4, self._records.shape[1] + 2 * self.graph.n_junctions), np.int32)
            self._records = np.hstack([self._records, more])

    # -- in C ---------------------------------------------------------------------------------

    def _advance_c(self, library: ctypes.CDLL, scores: npt.NDArray[np.float32]) -> int:
        g = self.graph
        c_graph = _CGraph(
            *(
                array.room.ctypes.data
                for array in (
                    g.columns, g.source, g.target, g.entry_weight, g.move_weight, g.duration,
                    g.first_out, g.last_out, g.jump_from, g.jump_to, g.jump_weight,
                )
            ),
            g.n_phones, g.n_junctions, g.jump_from.size,
            self.durations.ctypes.data, self.durations.shape[1],
        )  # fmt: skip
        c_state = _CState(
            *(
                array.room.ctypes.data
                for array in (
                    self._score, self._record, self._entered,
                    self._junction_score, self._junction_record, self._junction_phone,
                )
            ),
            *(row.ctypes.data for row in self._records),
            self._n_records, self._records.shape[1], self.low, self.high, BEAM, self.best,
        )  # fmt: skip
        done = int(
            library.advance(
                ctypes.byref(c_graph), ctypes.byref(c_state),
                scores.ctypes.data, scores.shape[1], self.frame, len(scores),
            )
        )  # fmt: skip
        self._n_records, self.low, self.high = c_state.n_records, c_state.low, c_state.high
        self.best = c_state.best
        self.frame += done
        return done

    # -- in NumPy -----------------------------------------------------------------------------

    def _advance_numpy(self, scores: npt.NDArray[np.float32]) -> int:
        for k in range(len(scores)):
            if self._n_records + self.graph.n_junctions > self._records.shape[1]:
                return k
            self._step_numpy(scores[k])
        return len(scores)

    def _step_numpy(self, frame: npt.NDArray[np.float32]) -> None:
        g = self.graph
        live = slice(self.low, self.high)
        v, r, e = self._score.room[live], self._record.room[live], self._entered.room[live]
        source, move = g.source.room[live], g.move_weight.room[live]
        jscore, jrecord = self._junction_score.view, self._junction_record.view
        came = np.empty_like(v)
        came[:, 0] = jscore[source] + g.entry_weight.room[live]
        came[:, 1:] = v[:, :2] + move[:, None]
        moved = came > v
        before_r = np.column_stack([jrecord[source], r[:, :2]])
        before_e = np.column_stack([np.full(len(v), self.frame, np.int32), e[:, :2]])
        v[...] = np.where(moved, came, v)
        r[...] = np.where(moved, before_r, r)
        e[...] = np.where(moved, before_e, e)
        v += frame[g.columns.room[live]]
        self.best = float(v.max())
        floor = self.best - BEAM
        v[v < floor] = NEVER

        jscore[:] = NEVER
        alive = np.flatnonzero((v > NEVER).any(axis=1))
        self.low, self.high = live.start + int(alive[0]), live.start + int(alive[-1]) + 1
        leaving = np.flatnonzero(v[:, 2] > NEVER)
        stayed = np.minimum(self.frame + 1 - e[leaving, 2], self.durations.shape[1] - 1)
        rows = g.duration.room[live][leaving]
        out = v[leaving, 2] + move[leaving] + self.durations[rows, stayed]
        leaving, out = leaving[out >= floor], out[out >= floor]
        target = g.target.room[live][leaving]
        # Ascending score; at equal scores the first phone comes last and wins, as in C.
        order = np.lexsort((-leaving, out))
        winner = np.full(g.n_junctions, -1)
        winner[target[order]] = order
        arrived = np.flatnonzero(winner >= 0)
        who = winner[arrived]
        jscore[arrived] = out[who]
        numbers = np.arange(self._n_records, self._n_records + len(arrived))
        self._records[0, numbers] = leaving[who] + live.start
        self._records[1, numbers] = e[leaving[who], 2]
        self._records[2, numbers] = self.frame + 1
        self._records[3, numbers] = r[leaving[who], 2]
        jrecord[arrived] = numbers
        self._n_records += len(arrived)
        for i in np.flatnonzero(jscore[g.jump_from.view] > NEVER).tolist():
            self._jump(i, floor)
        self._wake()
        self.frame += 1

    def _jump(self, first: int, floor: float) -> None:
        """Carry one junction's score over a jump, and on over the jumps that follow from there."""
        g, jscore, jrecord = self.graph, self._junction_score.room, self._junction_record.room
        pending = [first]
        while pending:
            i = pending.pop(0)
            a, b = int(g.jump_from.room[i]), int(g.jump_to.room[i])
            reached = jscore[a] + g.jump_weight.room[i]
            if reached >= floor and reached > jscore[b]:
                jscore[b] = reached
                jrecord[b] = jrecord[a]
                at = np.searchsorted(g.jump_from.view, b, "left")
                to = np.searchsorted(g.jump_from.view, b, "right")
                pending.extend(range(at, to))

    # -- answers ------------------------------------------------------------------------------

    def ends(self) -> npt.NDArray[np.float64]:
        """Scores of the paths that end now in each state, shape (phones, 3)."""
        return self._score.view

    def entered(self) -> npt.NDArray[np.int32]:
        """Frame at which the path now in each state entered its phone, shape (phones, 3)."""
        return self._entered.view

    def junction_score(self, junction: int) -> float:
        """Score of the best path that stands at a junction now."""
        return float(self._junction_score.room[junction])

    def path_to_state(self, phone: int, state: int) -> list[Record]:
        """The phones of the path that is now in a state; the last one's end is the present frame."""
        path = self._path(int(self._record.room[phone, state]))
        path.append(Record(phone, int(self._entered.room[phone, state]), self.frame))
        return path

    def path_to_junction(self, junction: int) -> list[Record]:
        """The phones of the path that stands at a junction now."""
        return self._path(int(self._junction_record.room[junction]))

    def _path(self, number: int) -> list[Record]:
        phone, start, end, before = self._records
        path: list[Record] = []
        while number >= 0:
            path.append(Record(int(phone[number]), int(start[number]), int(end[number])))
            number = int(before[number])
        path.reverse()
        return path


class _CGraph(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_void_p) for name in (
            "columns", "source", "target", "entry_weight", "move_weight", "duration",
            "first_out", "last_out", "jump_from", "jump_to", "jump_weight")]
        + [(name, ctypes.c_int32) for name in ("n_phones", "n_junctions", "n_jumps")]
        + [("durations", ctypes.c_void_p), ("n_durations", ctypes.c_int32)]
    )  # fmt: skip


class _CState(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_void_p) for name in (
            "score", "record", "entered", "junction_score", "junction_record", "junction_phone",
            "record_phone", "record_start", "record_end", "record_before")]
        + [(name, ctypes.c_int32) for name in ("n_records", "record_capacity", "low", "high")]
        + [("beam", ctypes.c_double), ("best", ctypes.c_double)]
    )  # fmt: skip
