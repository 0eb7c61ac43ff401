"""What the model is told about how much of its speech was heard. Pure: this file alone decides it.

In milliseconds: which *words* were heard is decided where facts are joined, and more cautiously
(``transcript/join/agent.py``). The model is told the best position even where it is not certain,
since it has to go on from somewhere; a transcript claims only what is proven.

The model generates audio faster than anybody can hear it, and puts all of it into the conversation
as if it had been heard. What was heard only the gateway knows, a moment after the caller cut in. So
it is asked, and then the model is told: ``conversation.item.truncate`` where playback stopped,
``conversation.item.delete`` of what nobody heard. (How the model answers: :mod:`.cuts`.)

Rules:

1. When the caller begins to speak, the server cancels what it is generating. From then on audio of
   those responses is stale: counted into what was generated, never given to the caller. Playback is
   interrupted only if something may be playing.
2. A part is settled once. Played to its end: nothing to say. Cut: ``truncate`` at the best
   position, floored and never beyond what was received. Nothing of the item heard: ``delete``, also
   when the gateway never saw it. The model may refuse either; the call goes on.
3. An item of an interrupted response is deleted when the response is over, not while the server may
   still be adding to it; a truncation goes out at once, as OpenAI's own clients do.
4. No truncation before the position is known. After 300 ms without one nothing is known about the
   parts that may be playing, since only the gateway sees the marks: they are left as they are. To
   leave an item whole makes the model believe for a while that a sentence was heard; to cut it at a
   guess could delete for ever what was heard. The position is used whenever it comes, and the first
   one stands.
5. Once the caller has left, the same is decided, and the model is told nothing: no next turn will
   need what was cut. Nor is it told how much of a notice was heard: that item is not the model's.

A part's states, and what follows in each (a dot: nothing; *decide*: the second table):

================================  ==========  ============  ==========  =========
what happens                      UNSENT      GIVEN         CUT         SETTLED
================================  ==========  ============  ==========  =========
audio goes to the caller          GIVEN       .             .           .
stale audio came                  .           .             decide      .
the caller speaks                 .           interrupt     .           .
position: played to its end       SETTLED     SETTLED       .           .
position: the line was cleared    decide      decide        .           .
not in the interrupt's answer     .           decide at 0   .           .
position: the stream is gone      SETTLED     SETTLED       .           .
its item is over                  .           .             decide      .
its response is over              delete?     .             delete?     .
its item is deleted or forgotten  SETTLED     SETTLED       SETTLED     .
================================  ==========  ============  ==========  =========

*interrupt*: the gateway is asked to stop playback, and where it did; once for each part. *delete?*:
an item of an interrupted response is deleted unless some of it was heard, some may be playing
(GIVEN), some with sound is settled, or all of it is text that was never meant for the ear.

=======================================  =========================  ===========================
*decide*: playback stopped               while more may come        when the item is over
=======================================  =========================  ===========================
at 0, nothing else of the item heard     CUT                        delete the item, once its
                                                                    response is over too
at the end of what came, or beyond       CUT                        SETTLED
in between                               truncate, SETTLED          truncate, SETTLED
=======================================  =========================  ===========================
"""

from __future__ import annotations

from asheard.v1 import fact_pb2, session_service_pb2
from session.realtime.bounds import MAX_REMEMBERED
from session.realtime.cuts import Cuts
from session.realtime.outputs import Interrupt, Note, Outputs, PartCut, PartPlayed
from session.realtime.state import Item, Memory, Part, PartKey, PartState

POSITIONS_S = 0.3
"""How long the positions of a barge-in may take before it is counted as late; rule 4. A fence comes
back within a round trip to Twilio, 30 to 200 ms."""


class Interruptions:
    """Decides what the model is told; see the module for the rules."""

    def __init__(self, memory: Memory, cuts: Cuts, outputs: Outputs) -> None:
        self._memory = memory
        self._cuts = cuts
        self._outputs = outputs
        self._interrupts = 0
        self._asked: dict[int, tuple[PartKey, ...]] = {}
        """Interrupts whose positions have not come, and the parts that may have been playing."""
        self._late_at: dict[int, float] = {}
        """Those that are not late yet, and when they will be."""

    # --- the caller speaks ------------------------------------------------------------------

    def interrupt(self, onset_ms: int | None, *, now: float) -> None:
        """The caller has begun to speak, or must have (rule 1).

        Args:
            onset_ms: When, in the model's input buffer. None: not known.
            now: Monotonic seconds.
        """
        memory = self._memory
        for response in memory.responses.values():
            response.interrupted = True
        asked = {key for parts in self._asked.values() for key in parts}
        playing = tuple(
            (item.item_id, content_index)
            for item in memory.items.values()
            for content_index, part in item.parts.items()
            if part.state is PartState.GIVEN and (item.item_id, content_index) not in asked
        )
        if not playing or memory.caller_left:
            return
        if len(self._asked) >= MAX_REMEMBERED:
            self._forget_interrupt(next(iter(self._asked)))
        self._interrupts += 1
        self._asked[self._interrupts] = playing
        self._late_at[self._interrupts] = now + POSITIONS_S
        self._outputs.add(Interrupt(self._interrupts, onset_ms))

    def next_timer(self) -> float | None:
        """When :meth:`timer` wants to be called, in monotonic seconds; None: not at all."""
        return min(self._late_at.values()) if self._late_at else None

    def timer(self, *, now: float) -> None:
        """Count positions that are late (rule 4); they are used all the same when they come."""
        for interrupt_id, late_at in list(self._late_at.items()):
            if now >= late_at:
                del self._late_at[interrupt_id]
                self._outputs.note(Note.POSITIONS_LATE)

    # --- the gateway's word -----------------------------------------------------------------

    def positions_fixed(self, fixed: session_service_pb2.PositionsFixed) -> None:
        """The gateway's last word on some parts: how much of each was played."""
        for position in sorted(fixed.positions, key=lambda p: p.content_index):
            found = self._memory.part((position.item_id, position.content_index))
            if found is None or found[1].settled or found[1].position_ms is not None:
                continue
            item, part = found
            item.heard |= position.best_ms > 0
            if fixed.cause == fact_pb2.POSITION_CAUSE_PLAYED:
                self.settle(item, position.content_index, part, part.received_ms)
            elif fixed.cause == fact_pb2.POSITION_CAUSE_CLEARED:
                part.position_ms = max(0, position.best_ms)
                self.decide(item, position.content_index, part)
            else:
                # The stream is gone: there is no model to be told.
                self.settle(item, position.content_index, part, position.best_ms)
        for key in self._forget_interrupt(fixed.interrupt_id):
            found = self._memory.part(key)
            if found is None or found[0].removed:
                continue
            item, part = found
            if not part.settled and part.position_ms is None:
                # Not named: it never reached Twilio.
                part.position_ms = 0
                self.decide(item, key[1], part)

    def _forget_interrupt(self, interrupt_id: int) -> tuple[PartKey, ...]:
        """The parts that it asked about."""
        self._late_at.pop(interrupt_id, None)
        return self._asked.pop(interrupt_id, ())

    # --- what follows -----------------------------------------------------------------------

    def decide(self, item: Item, content_index: int, part: Part) -> None:
        """Settle a part that was cut, if that is possible by now; does nothing for others."""
        position_ms = part.position_ms
        if part.settled or item.removed or position_ms is None:
            return
        if position_ms <= 0 and not item.heard:
            if item.done and item.response_id not in self._memory.responses:
                self._delete(item)
            return
        if position_ms >= part.received_ms:
            # All that came was played. What still comes, or the end of the item, decides.
            if item.done:
                self.settle(item, content_index, part, position_ms)
            return
        self.settle(item, content_index, part, position_ms)
        if not (self._memory.caller_left or item.notice):
            event_id = self._outputs.event_id()
            self._outputs.send(
                self._cuts.truncate(event_id, item.item_id, content_index, position_ms)
            )
            self._outputs.extend(self._cuts.overdue())

    def response_over(self, item: Item) -> None:
        """No more of an interrupted response will come: delete its item if nobody heard it."""
        if not item.speech or item.removed or item.heard:
            return
        parts = item.parts.values()
        if any(part.sent and part.position_ms is None for part in parts):
            return  # perhaps it is being heard; the positions will tell
        with_sound = [part for part in parts if part.audible]
        if any(part.settled for part in with_sound):
            return
        if not with_sound and any(part.text for part in parts):
            return  # it was never meant for the ear
        self._delete(item)

    def settle(self, item: Item, content_index: int, part: Part, heard_ms: int) -> None:
        """It is known how much was heard; ask for word times where they decide something.

        Heard to the end of the audio is heard in full only if the model said all it wanted:
        text of a cancelled item runs past its audio.
        """
        self._memory.held_bytes -= part.received_bytes
        part.settled = True
        if heard_ms > 0 and (heard_ms < part.received_ms or not item.completed):
            self._outputs.add(PartCut(item.item_id, content_index, part.text))
        else:
            self._outputs.add(PartPlayed(item.item_id, content_index))

    def _delete(self, item: Item) -> None:
        item.removed = True
        for content_index, part in item.parts.items():
            if not part.settled:
                self.settle(item, content_index, part, 0)
        if not (self._memory.caller_left or item.notice):
            self._outputs.send(self._cuts.delete(self._outputs.event_id(), item.item_id))
            self._outputs.extend(self._cuts.overdue())
