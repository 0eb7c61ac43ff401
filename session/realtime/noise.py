"""A sound that cut the agent off and was no turn: what the agent says then. Pure.

Voice detection takes a cough for a caller, or the echo of the greeting. The server cancels what the
model was saying, we stop playback, and then nothing more comes: no turn; or one that is transcribed
as empty, and no response to it. So when both sides have been silent for :data:`QUIET_S` and nothing
else is owed, the agent goes on from what was heard. A false alarm costs the caller a pause, never
the rest of the sentence.

What makes a turn one is the transcription: text, or that it failed (somebody may have spoken), or
that there is none to be had. A turn that is transcribed as empty is none, whatever committed it; it
is owed no answer either (:meth:`Noise.transcribed`). The server may answer it all the same, and
then that is what the agent says.

=========  ======  ======  ========  =======  =====================================
state      cut     turn    response  nothing  both sides are quiet
=========  ======  ======  ========  =======  =====================================
WHOLE      CUT     .       .         .        .
CUT        .       WHOLE   SPEAKING  .        OWED, with an output; or WHOLE
OWED       .       WHOLE   SPEAKING  .        .
SPEAKING   CUT     WHOLE   .         CUT      .
=========  ======  ======  ========  =======  =====================================

*cut*: voice detection heard something while the agent was speaking or about to; or the model broke
off by itself, as one does that may not say more, and called no function. *turn*: the caller
really said something, after that. *response*: one began, asked for or not. *nothing*: the one that
began when the agent was CUT is over, and nothing of it can be heard: it may have been the answer to
the sound, which is not owed any more once that turns out to be no turn. Results of functions that
are there before both sides have been quiet for long are spoken of at once, after what was not heard.

What is owed when both sides are quiet (the first row that fits):

============================================  =================================================
the agent file says ``wait`` (and the model   nothing: it is the caller's turn. WHOLE
did not break off by itself), nothing was
left unsaid, or three times in a row the
agent was cut off again before it was done
nothing was heard of it, nor of anything      GREETING: the greeting anew
before, and there is a greeting
nothing was heard of it, and what it was to   CONTINUATION: what stood before is still to be said
resume stands
text of it is known, or some was heard, or    CONTINUATION: what was not heard
a function call was broken off with it
nothing is known of it, and functions are at  nothing: their results will be spoken of. WHOLE
work or have answered
else; so, too, where only a notice was cut    ANSWER: the model speaks as if it had not begun
off: what it stood for is still missing
============================================  =================================================

A response that broke off by itself is gone on from once, until one says all it wanted or the caller
has its turn: it would break off for ever.

What was cut off in resuming is found like anything else. But where the model had not finished, its
text is not all that was left; then it counts how many words of it were heard.

:meth:`Noise.committed` and :meth:`Noise.transcribed` say whether a turn was none; then the ANSWER
to *this* turn is not owed (:meth:`.replies.Replies.no_turn`).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass

from asheard.v1 import fact_pb2
from session.agent import Agent, greeting_instructions
from session.realtime.bounds import MAX_REMEMBERED
from session.realtime.debts import Kind
from session.realtime.state import Item, Memory, Part, PartKey, PartState
from session.realtime.unheard import (
    Piece,
    TimedWord,
    Unheard,
    continuation_instructions,
    count_words,
    unheard,
)

QUIET_S = 1.5
"""How long both sides are silent before the agent goes on: longer than people pause between two
words, shorter than they wait before they ask "hello?"."""

COMMIT_S = 1.0
"""How long after the end of a sound its commit may take; the server sends both at once."""

MAX_IN_A_ROW = 3
"""How often the agent goes on without being heard to its end, or a turn of the caller's: its own
echo would cut it off for ever."""

GUESS_MS = 400
"""The gateway did not say how much was heard: by the clock, less this for the way to the caller."""


class State(enum.Enum):
    """What became of what the agent said last; see the table."""

    WHOLE = "whole"
    """It was not cut off, or the caller's turn came."""
    CUT = "cut"
    """It was cut off, and nothing says yet by what."""
    OWED = "owed"
    """The agent is to speak again."""
    SPEAKING = "speaking"
    """It does, about this or something else."""


class Event(enum.Enum):
    """What changes the state."""

    CUT = "cut"
    TURN = "turn"
    RESPONSE = "response"
    NOTHING = "nothing"
    """What began instead of it is over, and said nothing."""
    RESUME = "resume"
    """Both sides are quiet, and something is to be said."""
    LEAVE = "leave"
    """Both sides are quiet, and nothing is."""


TABLE = {
    (State.WHOLE, Event.CUT): State.CUT,
    (State.CUT, Event.TURN): State.WHOLE,
    (State.CUT, Event.RESPONSE): State.SPEAKING,
    (State.CUT, Event.RESUME): State.OWED,
    (State.CUT, Event.LEAVE): State.WHOLE,
    (State.OWED, Event.TURN): State.WHOLE,
    (State.OWED, Event.RESPONSE): State.SPEAKING,
    (State.SPEAKING, Event.CUT): State.CUT,
    (State.SPEAKING, Event.TURN): State.WHOLE,
    (State.SPEAKING, Event.NOTHING): State.CUT,
}
"""State and event to state. What is not here changes nothing."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The agent is to speak again."""

    kind: Kind
    instructions: str | None
    """For its response alone. None: the session's."""


class Noise:
    """Decides what the agent says after a sound that was no turn; see the module for the rules.

    Args:
        agent: Who speaks.
        memory: What it said.
    """

    def __init__(self, agent: Agent, memory: Memory) -> None:
        self._agent = agent
        self._memory = memory
        self._state = State.WHOLE
        self._cuts = 0
        self._cut: dict[str, None] = {}
        """Responses and notices that were cut off, under way or playing."""
        self._open = False
        """One of them was under way: the model had not finished."""
        self._guessed: dict[PartKey, int] = {}
        """How much of their parts was heard by the clock, in milliseconds."""
        self._timed: dict[PartKey, list[TimedWord]] = {}
        """The words of their parts, where an aligner has timed them."""
        self._broke_off = False
        """It was the model that broke off, and no sound."""
        self._went_on = False
        """It was gone on from such a response, and none has said all it wanted since."""
        self._stands: Unheard | None = None
        """What was left to be said before, until something of what came after it is heard."""
        self._continuing = False
        """We have asked the model to say that."""
        self._instead: str | None = None
        """The response that began when the agent was cut off, and nothing else was to be said."""
        self._since: deque[str] = deque(maxlen=MAX_REMEMBERED)
        """Responses that began since the agent was cut off."""
        self._in_a_row = 0
        self._greeted = agent.greeting is None
        """The greeting has lost its sense: there is none, the caller has heard words of the
        agent's, or has said something."""
        self._cut_at = 0.0
        self._stopped_at = 0.0
        self._committed: dict[str, int] = {}
        """The caller's items of which it is not known whether somebody spoke, and how often the
        agent had been cut off when they were committed; the newest."""
        self._spoken: dict[str, bool] = {}
        """Whether somebody spoke in it, by item, of those that are not committed; the newest."""

    @property
    def state(self) -> State:
        """What became of what the agent said last."""
        return self._state

    # --- what happens -------------------------------------------------------------------------

    def cut(self, response_id: str = "", *, now: float) -> None:
        """Voice detection heard something, and what the agent says is cut off by it.

        Args:
            response_id: Of one that is not under way any more, and turned out to be cut off by it.
            now: Monotonic seconds, before the line is taken for silent.
        """
        memory = self._memory
        cut = {r: None for r, response in memory.responses.items() if not response.heard_out}
        under_way = {*cut, response_id} - {""}
        if response_id:
            cut[response_id] = None
        playing = [
            (item, content_index, part)
            for item, content_index, part in self._parts()
            if part.state is PartState.GIVEN
        ]
        cut.update(dict.fromkeys(_source(item) for item, _, _ in playing))
        if cut:
            self._broke_off = False
        if self._state is State.CUT:
            self._cut |= cut  # two sounds in a row
            _bound(self._cut)
            self._open |= bool(under_way)
            return
        for before in self._cut:
            cut.pop(before, None)  # of the sound before, and its positions are not there yet
        if not cut or self._state is State.OWED:
            return
        if any(i.heard for i in self._items(self._since) if i.response_id not in cut):
            # What was said in between was heard to its end.
            self._stands = None
            self._in_a_row = 0
            self._greeted = True
        self._take(Event.CUT)
        self._cuts += 1
        self._cut_at = now
        self._since.clear()
        self._instead = None
        self._cut, self._open = cut, not under_way.isdisjoint(cut)
        self._guessed, self._timed = {}, {}
        unplayed_ms = max(0, round((memory.playing_until - now) * 1000))
        for item, content_index, part in reversed(playing):
            heard_ms = max(0, part.received_ms - unplayed_ms)
            unplayed_ms -= part.received_ms - heard_ms
            self._guessed[item.item_id, content_index] = max(0, heard_ms - GUESS_MS)

    def broken_off(self, response_id: str, *, now: float) -> None:
        """A response is over in mid-sentence, by itself, and called no function.

        Args:
            response_id: Which; some of it is to be heard.
            now: Monotonic seconds.
        """
        if self._went_on or self._state in (State.CUT, State.OWED):
            return
        self._take(Event.CUT)
        self._cuts += 1
        self._cut_at = now
        self._since.clear()
        self._instead = None
        self._cut, self._open, self._broke_off = {response_id: None}, True, True
        self._timed = {}
        self._guessed = {
            (item.item_id, index): part.received_ms
            for item, index, part in self._parts()
            if item.response_id == response_id
        }

    def said_all(self) -> None:
        """A response is over that said all it wanted."""
        self._went_on = False

    def words_timed(self, fact: fact_pb2.WordsTimed) -> None:
        """The words of a part were timed: where it was cut off, an aligner's times count."""
        key = fact.item_id, fact.content_index
        item = self._memory.items.get(fact.item_id)
        if fact.source.refined and item is not None and item.response_id in self._cut:
            self._timed[key] = [(word.text_start, word.end_ms) for word in fact.words]

    def speech_stopped(self, *, now: float) -> None:
        """The sound is over, in monotonic seconds; a turn may be committed yet."""
        self._stopped_at = now

    def committed(self, item_id: str) -> bool:
        """What was heard is an item of the caller's.

        Returns:
            Whether it is known already that nobody spoke in it.
        """
        self._committed[item_id] = self._cuts
        _bound(self._committed)
        spoken = self._spoken.pop(item_id, None)
        if self._agent.transcription is None:
            spoken = True
        return False if spoken is None else self._judge(item_id, spoken=spoken)

    def transcribed(self, item_id: str, text: str | None) -> bool:
        """What an item of the caller's says is known as a whole; also before it is committed.

        Args:
            item_id: Which.
            text: What it says. None: transcription failed.

        Returns:
            Whether it is committed, and nobody spoke in it.
        """
        spoken = text is None or bool(text.strip())
        if item_id in self._committed:
            return self._judge(item_id, spoken=spoken)
        self._spoken[item_id] = spoken
        _bound(self._spoken)
        return False

    def begun(self, response_id: str) -> None:
        """A response showed its first sign: the agent speaks, about what was cut off or not."""
        if response_id in self._cut:
            return
        self._since.append(response_id)
        if self._state is State.CUT:
            left = self._left()
            self._stands = None if left.nothing_known else left
            self._continuing = False
            self._instead = response_id
        self._take(Event.RESPONSE)

    def said_nothing(self, response_id: str) -> None:
        """A response is over that the caller did not cut off, and nothing of it can be heard."""
        if response_id == self._instead:
            self._take(Event.NOTHING)

    # --- what follows -------------------------------------------------------------------------

    def next_timer(
        self, *, quiet_from: float | None, owed: Collection[Kind], busy: bool
    ) -> float | None:
        """When :meth:`next` has something without any event; None: it takes one.

        Args:
            quiet_from: When nobody speaks any more, in monotonic seconds; it may lie ahead. None:
                the caller speaks.
            owed: What is owed already.
            busy: Something is asked or under way.
        """
        if self._state is not State.CUT or busy or quiet_from is None or self._memory.caller_left:
            return None
        committed_at = self._stopped_at + COMMIT_S
        if not owed:
            return max(quiet_from + QUIET_S, self._cut_at + QUIET_S, committed_at)
        # Results are not held back; what was not heard comes along.
        return max(quiet_from, committed_at) if set(owed) == {Kind.RESULTS} else None

    def next(
        self,
        *,
        quiet_from: float | None,
        owed: Collection[Kind],
        busy: bool,
        calling: bool,
        now: float,
    ) -> Resume | None:
        """What the agent owes the caller now beside the rest, if anything; handed over once.

        Args:
            quiet_from: As for :meth:`next_timer`.
            owed: The same.
            busy: The same.
            calling: Functions are at work.
            now: Monotonic seconds.
        """
        due = self.next_timer(quiet_from=quiet_from, owed=owed, busy=busy)
        if due is None or now < due:
            return None
        resume = self._resume(functions=calling or bool(owed))
        self._take(Event.LEAVE if resume is None else Event.RESUME)
        if resume is None:
            self._forget()
        else:
            self._in_a_row += 1
        return resume

    def _resume(self, *, functions: bool) -> Resume | None:
        left = self._left()
        if (
            (left.nothing_left and not self._notice_unheard())
            or self._in_a_row >= MAX_IN_A_ROW
            or (self._agent.when_cut_by_noise == "wait" and not self._broke_off)
        ):
            return None
        self._went_on |= self._broke_off
        stands, self._stands, self._continuing = self._stands, None, False
        if left.nothing_heard and not self._greeted:
            return Resume(Kind.GREETING, greeting_instructions(self._agent))
        nothing = left.nothing_heard and left.nothing_known and not left.call_broken_off
        if left.nothing_left or (stands is None and nothing):
            return None if functions else Resume(Kind.ANSWER, None)
        self._stands, self._continuing = left, True
        rest = continuation_instructions(left, functions=functions, by_noise=not self._broke_off)
        return Resume(Kind.CONTINUATION, f"{self._agent.instructions}\n\n{rest}")

    # --- what was heard -----------------------------------------------------------------------

    def _left(self) -> Unheard:
        """What is left to be said of what was cut off."""
        pieces: list[Piece] = []
        broken_off = False
        for item in self._items(self._cut):
            if not item.speech:
                broken_off |= not item.announced
            elif not item.notice:
                pieces += self._pieces(item)
        left = unheard(pieces, unfinished=self._open, call_broken_off=broken_off)
        self._greeted = self._greeted or not left.nothing_heard
        stands = self._stands
        if stands is None:
            return left
        if left.nothing_heard:
            return stands
        if self._continuing and self._open:
            rest = stands.after(count_words(left.heard))
            return left if rest.nothing_known else rest
        return left

    def _notice_unheard(self) -> bool:
        """Whether a notice was cut off before its end."""
        return any(
            not unheard(self._pieces(item), unfinished=False).nothing_left
            for item in self._items(self._cut)
            if item.notice
        )

    def _pieces(self, item: Item) -> list[Piece]:
        return [
            Piece(
                part.text,
                part.received_ms,
                self._heard_ms(item, index, part),
                item.completed,
                self._timed.get((item.item_id, index), ()),
            )
            for index, part in sorted(item.parts.items())
            if part.audible
        ]

    def _heard_ms(self, item: Item, content_index: int, part: Part) -> int:
        if item.removed:
            return 0
        if part.position_ms is not None:
            return part.position_ms
        if part.settled:
            return part.received_ms
        return self._guessed.get((item.item_id, content_index), 0)

    def _items(self, sources: Container[str]) -> Iterator[Item]:
        """Items of some responses, and some notices, in order."""
        for item in self._memory.items.values():
            if _source(item) in sources:
                yield item

    def _parts(self) -> Iterator[tuple[Item, int, Part]]:
        """The parts of all that a response or a notice said, in order."""
        for item in self._memory.items.values():
            if _source(item) and item.speech:
                parts = item.parts.items()
                for content_index, part in parts if len(parts) == 1 else sorted(parts):
                    yield item, content_index, part

    # --- the caller's turns -------------------------------------------------------------------

    def _judge(self, item_id: str, *, spoken: bool) -> bool:
        """It is known whether an item of the caller's is a turn of its; whether it is none."""
        cuts = self._committed.pop(item_id)
        if spoken:
            self._greeted = True
            self._in_a_row = 0
            self._went_on = False
            self._stands = None
            if cuts == self._cuts:  # else the agent was cut off after it, perhaps by noise
                self._take(Event.TURN)
                self._forget()
        return not spoken

    def _forget(self) -> None:
        self._cut, self._open, self._guessed, self._timed = {}, False, {}, {}
        self._broke_off = False
        self._stands, self._continuing = None, False
        self._since.clear()

    def _take(self, event: Event) -> None:
        self._state = TABLE.get((self._state, event), self._state)


def _source(item: Item) -> str:
    """What an item is cut off with: its response, or a notice by itself."""
    return item.item_id if item.notice else item.response_id


def _bound(known: dict[str, int] | dict[str, bool] | dict[str, None]) -> None:
    """Forget the oldest of what is remembered by its id."""
    while len(known) > MAX_REMEMBERED:
        del known[next(iter(known))]
