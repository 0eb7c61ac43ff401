"""Who speaks next: carries out what is decided about debts and silence. Pure.

:mod:`~session.realtime.replies` says when the model is asked, :mod:`~session.realtime.line` who is
audible, :mod:`~session.realtime.dead_air` how long the caller has waited for what,
:mod:`~session.realtime.noise` and :mod:`~session.realtime.waiting` what else a silence asks for. This
brings them together after every event that changes one of them (``Memory.stirred``), which most of
what the model sends does not.
"""

from __future__ import annotations

from asheard.v1 import fact_pb2
from session.notices import Notice
from session.realtime.dead_air import MIN_FACT_S, REASONS, TOOL, DeadAir, Reason, Stretch
from session.realtime.debts import Kind
from session.realtime.ends import Ends
from session.realtime.events import RateLimit
from session.realtime.functions import Functions
from session.realtime.input_clock import InputClock
from session.realtime.line import Line
from session.realtime.noise import Noise
from session.realtime.notices import Notices
from session.realtime.outputs import Note, Outputs
from session.realtime.replies import End, GiveUp, Replies, Sorry, State
from session.realtime.state import Memory
from session.realtime.waiting import Waiting
from session.realtime.waits import exhausted_s

MAX_BEHIND_S = 10.0
"""How long ago a last word can have been: voice detection waits eight seconds at most."""


class Floor:
    """Brings together who speaks; see the module."""

    def __init__(
        self,
        memory: Memory,
        clock: InputClock,
        replies: Replies,
        functions: Functions,
        waiting: Waiting,
        noise: Noise,
        line: Line,
        ends: Ends,
        notices: Notices,
        outputs: Outputs,
    ) -> None:
        self._memory = memory
        self._clock = clock
        self._replies = replies
        self._functions = functions
        self._waiting = waiting
        self._ends = ends
        self._notices = notices
        self._outputs = outputs
        self._noise = noise
        self._line = line
        self._dead_air = DeadAir()
        self._owing: Reason | None = None
        """What the caller waited for when that was looked at last."""
        self._last_word_at: float | None = None
        """Of a turn that is not committed yet, in monotonic seconds."""

    # --- the caller -------------------------------------------------------------------------

    def speech_started(self, *, now: float) -> None:
        """The caller speaks."""
        self._memory.stirred = True
        self._replies.speech_started(now=now)
        self._line.caller_speaks()

    def cut(self, *, now: float) -> None:
        """The caller has cut the agent off: what is under way and what is playing."""
        self._memory.stirred = True
        self._noise.cut(now=now)
        self._replies.cut(now=now)
        self._line.agent_silenced(now=now)

    def speech_stopped(self, end_buffer_ms: int, *, now: float) -> None:
        """The caller stopped.

        Args:
            end_buffer_ms: Its last word, in the model's input buffer.
            now: Monotonic seconds.
        """
        self._memory.stirred = True
        self._replies.speech_stopped(now=now)
        self._noise.speech_stopped(now=now)
        behind_s = (self._clock.appended_ms - end_buffer_ms) / 1000
        self._last_word_at = now - min(max(0.0, behind_s), MAX_BEHIND_S)
        self._line.caller_stopped(self._last_word_at)

    def committed(self, item_id: str, *, now: float) -> None:
        """What the caller said is a turn, with or without the end of speech."""
        self._memory.stirred = True
        self._line.caller_stopped(now)
        self._replies.committed(item_id, now=now, since=self._last_word_at)
        self._last_word_at = None
        if self._noise.committed(item_id):
            self._replies.no_turn(item_id)

    def transcribed(self, item_id: str, text: str | None) -> None:
        """What an item of the caller's says is known as a whole; None: transcription failed."""
        self._memory.stirred = True
        if self._noise.transcribed(item_id, text):
            self._replies.no_turn(item_id)

    def limited(self, limits: list[RateLimit], *, now: float) -> None:
        """The server says what is left of the account's limits."""
        seconds = exhausted_s(limits)
        if seconds > 0:
            self._memory.stirred = True
            self._replies.limited(seconds, now=now)

    # --- what is due ------------------------------------------------------------------------

    def run(self, *, now: float) -> None:
        """Do what is due."""
        memory, replies = self._memory, self._replies
        memory.stirred = False
        for response_id in memory.begun:
            if response_id in memory.responses:
                replies.begun(response_id, now=now)
                self._noise.begun(response_id)
        memory.begun.clear()
        if len(memory.responses) != len(replies.under_way):  # one was given up for want of room
            for response_id in [r for r in replies.under_way if r not in memory.responses]:
                replies.done(response_id, End.FAILED, now=now)
        replies.sign(memory.generated_at)
        self._see_out(now)
        replies.results_added(self._functions.results_added)
        if self._functions.take_answered():
            replies.owe(Kind.RESULTS, now=now)
        self._look(now)
        self._owe(now)
        word = self._dead_air.word(now=now)
        if word is not None:
            self._say(word, now)
            self._look(now)
        due = replies.next_timer()
        while due is not None and now >= due:
            step = replies.next(self._outputs.event_id("r"), now=now)
            if isinstance(step, GiveUp):
                self._ends.give_up(step.response_id, step.end, now=now)
            elif isinstance(step, Sorry):
                self._say(Notice.HOLD if step.waiting else Notice.SORRY, now)
            elif step is not None:
                self._outputs.send(step)
            self._look(now)
            due = replies.next_timer()

    def _see_out(self, now: float) -> None:
        """See which responses were heard out."""
        for response in list(self._memory.responses.values()):
            at = self._ends.heard_out_at(response)
            response.heard_out = at is not None and now >= at
            self._replies.heard_out(response.response_id, response.heard_out)
            if response.heard_out and response.called_tools:
                self._ends.give_up(response.response_id, End.SPOKE, now=now)

    def _owe(self, now: float) -> None:
        """See what the silence asks for: the rest after noise, a word while functions work."""
        quiet_from = self._line.quiet_from
        resume = self._noise.next(
            quiet_from=quiet_from,
            owed=self._replies.owed,
            busy=self._busy,
            calling=self._waiting.working,
            now=now,
        )
        if resume is not None:
            instructions = resume.instructions
            self._replies.owe(resume.kind, now=now, since=quiet_from, instructions=instructions)
            return
        word = self._waiting.next(quiet_since=self._dead_air.since, held=self._held, now=now)
        if word is not None:
            self._replies.owe(Kind.WAITING, now=now, instructions=word.instructions)
            self._dead_air.word_owed(after_s=word.after_s, now=now)
            self._look(now)

    def next_timer(self) -> float | None:
        """When :meth:`run` has something without any event; None: it takes one."""
        heard_out = [
            self._ends.heard_out_at(response)
            for response in self._memory.responses.values()
            if not response.heard_out
        ]
        wishes = (
            *heard_out,
            self._replies.next_timer(),
            self._dead_air.next_timer(),
            self._waiting.next_timer(held=self._held),
            self._noise.next_timer(
                quiet_from=self._line.quiet_from, owed=self._replies.owed, busy=self._busy
            ),
        )
        return min((wish for wish in wishes if wish is not None), default=None)

    def close(self, *, now: float) -> None:
        """The caller has left, or the session is over: nobody waits any more."""
        self._replies.stop()
        self._look(now)

    def _look(self, now: float) -> None:
        self._replies.calling = self._waiting.working
        was, self._owing = self._owing, self._replies.owing(now)
        over = self._dead_air.look(
            self._owing,
            since=self._replies.owing_since() if was is None else None,
            quiet_from=self._line.quiet_from,
            now=now,
        )
        if over is not None:
            self._account(over, now)

    @property
    def _busy(self) -> bool:
        """Whether something is asked or under way, or never will be again."""
        return self._replies.state is not State.QUIET

    @property
    def _held(self) -> bool:
        """Whether more than a function is waited for."""
        return self._owing is not None and self._owing != TOOL

    def _account(self, stretch: Stretch, now: float) -> None:
        lasted_ms = round(stretch.lasted_s * 1000)
        self._outputs.note(Note.DEAD_AIR, REASONS[stretch.reason], lasted_ms)
        if stretch.lasted_s < MIN_FACT_S:
            return
        end_ms = self._clock.media_now(now)
        start_ms = None if end_ms is None else max(0, end_ms - lasted_ms)
        self._outputs.fact(
            "dead_air",
            fact_pb2.DeadAir(
                reason=stretch.reason, start_ms=start_ms, end_ms=end_ms, lasted_ms=lasted_ms
            ),
        )

    def _say(self, notice: Notice, now: float) -> None:
        """Tell the caller something without the model."""
        silenced = self._replies.withdraw(Kind.WAITING)
        if notice is Notice.SORRY:
            silenced = self._replies.give_up()
        for response_id in silenced:
            self._ends.give_up(response_id, End.CUT, now=now)
        self._line.agent_given(self._notices.say(notice), now=now)
