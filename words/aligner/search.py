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
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from words.aligner import layout
from words.aligner.kernel import kernel

NEVER = -1e30
"""Score of a path that does not exist."""

BEAM = 90.0
"""Paths this far behind the best are dropped. Found by widening until no word time changed."""

_FIRST_RECORDS = 4096


class _Rows:
    """Rows of a table that grows at its end, doubling its room. The C loop reads them as structs."""

    def __init__(self, dtype: type[np.generic], width: int, fill: float = 0) -> None:
        self._fill = fill
        self.size = 0
        self.room: npt.NDArray[Any] = np.full((64, width), fill, dtype)
        self.address = self.room.ctypes.data

    def grow_to(self, size: int) -> None:
        """Add rows of the fill value until there are so many."""
        if size > len(self.room):
            more = max(size - len(self.room), len(self.room))
            added = np.full((more, self.room.shape[1]), self._fill, self.room.dtype)
            self.room = np.concatenate([self.room, added])
            self.address = self.room.ctypes.data
        self.size = size

    def extend(self, rows: npt.NDArray[Any]) -> None:
        """Add these rows."""
        first = self.size
        self.grow_to(first + len(rows))
        self.room[first : self.size] = rows

    @property
    def view(self) -> npt.NDArray[Any]:
        """The rows in use."""
        return self.room[: self.size]


class Record(NamedTuple):
    """A path left a phone."""

    phone: int
    start: int
    """Frame it entered at."""

    end: int
    """Frame it left at, exclusive."""


class Phone(NamedTuple):
    """A phone between two junctions."""

    columns: Sequence[int]
    """Column of the scores for each of its states."""

    source: int
    target: int
    entry_weight: float = 0.0
    move_weight: float = 0.0
    duration: int = 0
    """Row of the duration table."""


class Jump(NamedTuple):
    """A way from one junction to a later one that takes no time."""

    source: int
    target: int
    weight: float = 0.0


_NONE = (1, 0)
"""First and last of the phones that can be entered from a junction: there are none."""


def _table(rows: Sequence[tuple[int, ...]], width: int) -> npt.NDArray[np.int32]:
    return np.array(rows, np.int32).reshape(-1, width)


class GraphPart:
    """Phones and jumps between a few junctions: made once, appended to graphs as often as needed."""

    def __init__(self, n_junctions: int, phones: Sequence[Phone], jumps: Sequence[Jump]) -> None:
        """Make a part.

        Args:
            n_junctions: Numbered from 0, which will be the last junction of the graph so far. They
                ascend from the text's start to its end.
            phones: Roughly in that order too: what lies between two live phones is searched.
            jumps: In any order.

        Raises:
            ValueError: A jump leads backwards.
        """
        for jump in jumps:
            if jump.target <= jump.source:
                raise ValueError(f"a jump must lead forward, got {jump.source} to {jump.target}")
        out = [_NONE] * n_junctions
        for number, phone in enumerate(phones):
            first, last = out[phone.source]
            out[phone.source] = (first if first <= last else number, number)
        ordered = sorted(jumps)
        sources = [jump.source for jump in ordered]
        first_jump = [bisect_left(sources, junction) for junction in range(n_junctions)]

        self.phones = _table([(*p.columns, p.source, p.target, p.duration) for p in phones], 6)
        self.weights = np.array([(p.entry_weight, p.move_weight) for p in phones]).reshape(-1, 2)
        self.junctions = _table([(*o, j) for o, j in zip(out, first_jump, strict=True)], 3)
        self.jumps = _table([jump[:2] for jump in ordered], 2)
        self.jump_weights = np.array([jump[2:] for jump in ordered], np.float64).reshape(-1, 1)


class PhoneGraph:
    """Phones between junctions; only ever grows at its end. Every path begins at junction 0."""

    def __init__(self) -> None:
        self.phones = _Rows(np.int32, 6)
        """The columns of three states, source, target, row of the duration table."""

        self.weights = _Rows(np.float64, 2)
        """Of each phone: what is added on entering, and on each move to a next state."""

        self.junctions = _Rows(np.int32, 3)
        """First and last phone entered from it, and the first jump that starts there or later."""

        self.jumps = _Rows(np.int32, 2)
        """Source and target; ascending by source."""

        self.jump_weights = _Rows(np.float64, 1)
        self.junctions.extend(_table([(*_NONE, 0)], 3))

    @property
    def n_phones(self) -> int:
        """How many phones there are."""
        return self.phones.size

    @property
    def n_junctions(self) -> int:
        """How many junctions there are."""
        return self.junctions.size

    @property
    def duration_rows(self) -> npt.NDArray[np.int32]:
        """Of each phone, the row of the duration table."""
        return self.phones.view[:, 5]

    def append(self, part: GraphPart) -> None:
        """Add a part at the last junction."""
        phone, joint, jump = self.n_phones, self.n_junctions - 1, self.jumps.size
        shift = np.array([0, 0, 0, joint, joint, 0], np.int32)
        self.phones.extend(part.phones + shift)
        self.weights.extend(part.weights)
        junctions = part.junctions + np.array([phone, phone, jump], np.int32)
        self.junctions.extend(junctions[1:])
        first, last, _ = self.junctions.room[joint].tolist()
        first_added, last_added, _ = junctions[0].tolist()
        if first_added <= last_added:
            self.junctions.room[joint, :2] = (first if first <= last else first_added, last_added)
        self.jumps.extend(part.jumps + np.int32(joint))
        self.jump_weights.extend(part.jump_weights)


class Search:
    """All surviving paths through a graph up to one frame."""

    def __init__(self, graph: PhoneGraph, durations: npt.NDArray[np.float64]) -> None:
        """Start at the graph's first junction.

        Args:
            graph: May grow between calls of :meth:`advance`.
            durations: Shape (rows, frames): what leaving after so many frames adds.
        """
        self.graph = graph
        self.durations = np.ascontiguousarray(durations, np.float64)
        self.frame = 0
        self.best = 0.0
        self._live = (0, 0)
        """Phones that may be alive, half-open; so for the junctions."""

        self._live_junctions = (0, 0)
        self._score = _Rows(np.float64, 3, NEVER)
        self._came = _Rows(np.int32, 6)
        """For each state the record before this phone, and then the frame it was entered at."""

        self._junction_score = _Rows(np.float64, 1, NEVER)
        self._junction_came = _Rows(np.int32, 2)
        """The record before this junction, and scratch."""

        self._records = np.empty((_FIRST_RECORDS, 4), np.int32)
        """Phone, start, end, the record before."""

        self._n_records = 0
        self._make_room_for_graph()
        self._junction_score.room[0] = 0.0
        self._junction_came.room[0] = -1
        self._jump_from(0)

    def _make_room_for_graph(self) -> None:
        for by_phone in (self._score, self._came):
            by_phone.grow_to(self.graph.n_phones)
        for by_junction in (self._junction_score, self._junction_came):
            by_junction.grow_to(self.graph.n_junctions)

    def _jump_from(self, junction: int) -> None:
        """Carry the scores of junctions over jumps, from one junction on."""
        first = int(self.graph.junctions.room[junction, 2])
        jumps = self.graph.jumps.view[first:].tolist()
        weights = self.graph.jump_weights.view[first:, 0].tolist()
        score, came = self._junction_score.room[:, 0], self._junction_came.room
        for (source, target), weight in zip(jumps, weights, strict=True):
            reached = score[source] + weight
            if score[source] > NEVER and reached > score[target]:
                score[target] = reached
                came[target] = came[source]
        self._wake()

    def _wake(self) -> None:
        """Let phones that can be entered in the next frame be looked at."""
        alive = np.flatnonzero(self._junction_score.view > NEVER)
        if len(alive) == 0:
            self._live_junctions = (0, 0)
            return
        self._live_junctions = int(alive[0]), int(alive[-1]) + 1
        first_out, last_out, _ = self.graph.junctions.room[alive].T
        entered = last_out >= first_out
        if entered.any():
            first, last = int(first_out[entered].min()), int(last_out[entered].max())
            low, high = self._live
            self._live = (
                (first, last + 1) if low >= high else (min(low, first), max(high, last + 1))
            )

    def graph_grew(self) -> None:
        """Take in what was appended to the graph."""
        joint = self._junction_score.size - 1
        self._make_room_for_graph()
        if self._junction_score.room[joint, 0] > NEVER:
            self._jump_from(joint)

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
        if self._n_records + self.graph.n_junctions >= len(self._records) // 2:
            more = len(self._records) + 2 * self.graph.n_junctions
            self._records = np.concatenate([self._records, np.empty((more, 4), np.int32)])

    # -- in C ---------------------------------------------------------------------------------

    def _advance_c(self, library: ctypes.CDLL, scores: npt.NDArray[np.float32]) -> int:
        g = self.graph
        c_graph = layout.Graph(
            g.phones.address, g.weights.address, g.junctions.address,
            g.jumps.address, g.jump_weights.address, self.durations.ctypes.data,
            g.n_phones, g.n_junctions, g.jumps.size, self.durations.shape[1],
        )  # fmt: skip
        c_state = layout.State(
            self._score.address, self._came.address,
            self._junction_score.address, self._junction_came.address,
            self._records.ctypes.data, self._n_records, len(self._records),
            *self._live, *self._live_junctions, BEAM, self.best,
        )  # fmt: skip
        done = int(
            library.advance(
                ctypes.byref(c_graph), ctypes.byref(c_state),
                scores.ctypes.data, scores.shape[1], self.frame, len(scores),
            )
        )  # fmt: skip
        self._n_records, self.best = c_state.n_records, c_state.best
        self._live = c_state.low, c_state.high
        self._live_junctions = c_state.junction_low, c_state.junction_high
        self.frame += done
        return done

    # -- in NumPy -----------------------------------------------------------------------------

    def _advance_numpy(self, scores: npt.NDArray[np.float32]) -> int:
        for k in range(len(scores)):
            if self._n_records + self.graph.n_junctions > len(self._records):
                return k
            self._step_numpy(scores[k])
        return len(scores)

    def _step_numpy(self, frame: npt.NDArray[np.float32]) -> None:
        g = self.graph
        live = slice(*self._live)
        v = self._score.room[live]
        r, e = self._came.room[live, :3], self._came.room[live, 3:]
        columns, source, target, duration = np.split(g.phones.room[live], (3, 4, 5), axis=1)
        entry, move = g.weights.room[live].T
        jscore, jrecord = self._junction_score.view[:, 0], self._junction_came.view[:, 0]
        came = np.empty_like(v)
        came[:, 0] = jscore[source[:, 0]] + entry
        came[:, 1:] = v[:, :2] + move[:, None]
        moved = came > v
        before_r = np.column_stack([jrecord[source], r[:, :2]])
        before_e = np.column_stack([np.full(len(v), self.frame, np.int32), e[:, :2]])
        v[...] = np.where(moved, came, v)
        r[...] = np.where(moved, before_r, r)
        e[...] = np.where(moved, before_e, e)
        v += frame[columns]
        self.best = float(v.max())
        floor = self.best - BEAM
        v[v < floor] = NEVER

        jscore[:] = NEVER
        alive = np.flatnonzero((v > NEVER).any(axis=1))
        self._live = live.start + int(alive[0]), live.start + int(alive[-1]) + 1
        leaving = np.flatnonzero(v[:, 2] > NEVER)
        stayed = np.minimum(self.frame + 1 - e[leaving, 2], self.durations.shape[1] - 1)
        out = v[leaving, 2] + move[leaving] + self.durations[duration[leaving, 0], stayed]
        leaving, out = leaving[out >= floor], out[out >= floor]
        # Ascending score; at equal scores the first phone comes last and wins, as in C.
        order = np.lexsort((-leaving, out))
        winner = np.full(g.n_junctions, -1)
        winner[target[leaving[order], 0]] = order
        arrived = np.flatnonzero(winner >= 0)
        who = leaving[winner[arrived]]
        jscore[arrived] = out[winner[arrived]]
        numbers = np.arange(self._n_records, self._n_records + len(arrived))
        end = np.full(len(who), self.frame + 1)
        self._records[numbers] = np.column_stack([who + live.start, e[who, 2], end, r[who, 2]])
        jrecord[arrived] = numbers
        self._n_records += len(arrived)
        for i in np.flatnonzero(jscore[g.jumps.view[:, 0]] > NEVER).tolist():
            self._jump(i, floor)
        self._wake()
        self.frame += 1

    def _jump(self, first: int, floor: float) -> None:
        """Carry one junction's score over a jump, and on over the jumps that follow from there."""
        g, jscore, jcame = self.graph, self._junction_score.room[:, 0], self._junction_came.room
        pending = [first]
        while pending:
            i = pending.pop(0)
            a, b = g.jumps.room[i].tolist()
            reached = jscore[a] + g.jump_weights.room[i, 0]
            if reached >= floor and reached > jscore[b]:
                jscore[b] = reached
                jcame[b] = jcame[a]
                at = np.searchsorted(g.jumps.view[:, 0], b, "left")
                to = np.searchsorted(g.jumps.view[:, 0], b, "right")
                pending.extend(range(at, to))

    # -- answers ------------------------------------------------------------------------------

    def ends(self) -> npt.NDArray[np.float64]:
        """Scores of the paths that end now in each state, shape (phones, 3)."""
        return self._score.view

    def entered(self) -> npt.NDArray[np.int32]:
        """Frame at which the path now in each state entered its phone, shape (phones, 3)."""
        return self._came.view[:, 3:]

    def junction_score(self, junction: int) -> float:
        """Score of the best path that stands at a junction now."""
        return float(self._junction_score.room[junction, 0])

    def path_to_state(self, phone: int, state: int) -> list[Record]:
        """The phones of the path that is now in a state; the last one's end is the present frame."""
        path = self._path(int(self._came.room[phone, state]))
        path.append(Record(phone, int(self._came.room[phone, 3 + state]), self.frame))
        return path

    def path_to_junction(self, junction: int) -> list[Record]:
        """The phones of the path that stands at a junction now."""
        return self._path(int(self._junction_came.room[junction, 0]))

    def _path(self, number: int) -> list[Record]:
        before = self._records[:, 3]
        numbers: list[int] = []
        while number >= 0:
            numbers.append(number)
            number = before.item(number)
        numbers.reverse()
        return list(map(Record._make, self._records[numbers, :3].tolist()))
