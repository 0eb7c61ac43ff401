"""What holds for agent audio whatever comes in whichever order, of the core alone."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter

import pytest
from websockets.frames import Frame
from websockets.streams import StreamReader

from gateway import delivery
from gateway.bargein import BargeIn
from gateway.delivery import (
    SOCKET_AHEAD_BYTES,
    Delivery,
    HandInTrace,
    PartFixed,
    TellPositions,
)
from gateway.playout.clock import MediaClock
from gateway.playout.playhead import Playhead
from gateway.playout.positions import Cause, Part
from gateway.twilio.messages import PIECE_CHARS

PARTS = [Part("a"), Part("a", 1), Part("b"), Part("c")]
MAX_UNSENT_BYTES = 8 * 4_000
FRAME_US = 20_000
CALLS = 40
"""Calls of each test, with seeds of their own."""
STEPS = 100
"""Of a call, at most."""


def messages(frames: bytes) -> list[dict[str, object]]:
    """What an independent implementation reads in frames."""
    reader = StreamReader()
    reader.feed_data(frames)
    found = []
    while reader.buffer:
        parser = Frame.parse(reader.read_exact, mask=False)
        try:
            next(parser)
        except StopIteration as done:
            found.append(json.loads(done.value.data))
    return found


class World:
    """A delivery with a worker, a socket and Twilio around it that do as they like.

    But the worker sends nothing more of a part that an interrupt cut, as it promises.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.delivery = Delivery("MZ1", MediaClock())
        self.now_us = 0
        self.media_ms = 0
        self.serial = 0
        self.backlog_bytes = 0
        self.waiting: list[bytes] = []
        """Audio that may still be written, in the order in which it was given."""
        self.given: set[Part] = set()
        self.cut: set[Part] = set()
        """Parts of which the worker sends nothing more."""
        self.marks: list[str] = []
        self.asked: list[int] = []
        self.fixed: Counter[Part] = Counter()
        self.told: Counter[Part] = Counter()
        self.cut_by: dict[int, list[Part]] = {}
        """Parts that were fixed, by the interrupt."""
        self.answered: list[int] = []
        self.frame()

    def step(self) -> None:
        """Let something happen."""
        chance = self.random
        match chance.choices(range(8), (6, 2, 10, 2, 4, 12, 1, 1))[0]:
            case 0:
                self.frame()
            case 1:
                self.pass_time(chance.choice([1, 10_000, 50_000, 300_000, 1_000_000, 5_000_000]))
            case 2:
                rest_bytes = chance.choice([0, 1, 160, 700])
                self.give(
                    chance.choice(PARTS), chance.randint(0, 4), rest_bytes, chance.random() < 0.2
                )
            case 3:
                self.write()
            case 4:
                self.backlog_bytes = 0  # the network took all that was written
            case 5 if self.marks:
                at = chance.choice([0, 0, 0, 0, 0, 0, len(self.marks) - 1, len(self.marks) // 2])
                self.echo(at)
            case 6:
                self.interrupt()
            case 7 if self.fixed:  # the model goes on after the end of a part
                self.give(chance.choice(list(self.fixed)), 0, 160, False)

    # -- what is looked at ---------------------------------------------------------------------

    def look(self) -> None:
        """Take the answers, and what they must never be."""
        for answer in self.delivery.answers(now_us=self.now_us):
            if isinstance(answer, PartFixed):
                part, interrupt_id = answer.fixed.position.part, answer.fixed.interrupt_id
                self.fixed[part] += 1
                self.cut_by.setdefault(interrupt_id, []).append(part)
                assert interrupt_id not in self.answered, "an answer has all positions"
                assert answer.unheard_ms >= 0
            elif isinstance(answer, TellPositions):
                self.told.update(position.part for position in answer.positions)
                if answer.interrupt_id:
                    told = [position.part for position in answer.positions]
                    assert told == self.cut_by.get(answer.interrupt_id, [])
                    self.answered.append(answer.interrupt_id)
            elif isinstance(answer, BargeIn):
                assert answer.interrupt_id == self.answered[-1]
            elif isinstance(answer, HandInTrace):
                assert answer.events
        assert max(self.fixed.values(), default=0) <= 1, "a part is fixed once"
        assert len(set(self.answered)) == len(self.answered), "an interrupt is answered once"
        assert set(self.answered) <= set(self.asked)

    def written(self, frames: bytes) -> None:
        """Take what was written: audio as it was given, in order, and nothing else."""
        for message in messages(frames):
            match message:
                case {"event": "media", "media": {"payload": str(payload)}}:
                    audio = payload.encode()
                    while self.waiting and self.waiting[0] != audio:
                        self.waiting.pop(0)  # it was dropped, since too much waited
                    assert self.waiting, "nothing is written that was not given, or was interrupted"
                    self.waiting.pop(0)
                case {"event": "mark", "mark": {"name": str(name)}}:
                    assert name not in self.marks
                    self.marks.append(name)
                case _:
                    raise AssertionError(message)

    # -- what happens --------------------------------------------------------------------------

    def frame(self) -> None:
        """20 ms of the caller."""
        self.pass_time(FRAME_US)
        self.media_ms += 20
        self.delivery.receive_media(self.media_ms, 160, self.now_us)
        self.look()

    def pass_time(self, us: int) -> None:
        """Time passes; what is due meanwhile is done when it is."""
        until_us = self.now_us + us
        while (due_us := self.delivery.next_timer_us()) is not None and due_us <= until_us:
            self.now_us = max(self.now_us, due_us)
            self.delivery.handle_timer(now_us=self.now_us)
            self.write()
            self.backlog_bytes //= 2
        self.now_us = until_us

    def give(self, part: Part, pieces: int, rest_bytes: int, last: bool) -> None:
        """A delta of the model."""
        if part in self.cut:
            return
        texts = []
        for size in [*(pieces * [PIECE_CHARS // 4 * 3]), *([rest_bytes] if rest_bytes else [])]:
            self.serial += 1
            audio = self.serial.to_bytes(3, "big") + bytes(max(0, size - 3))
            texts.append(base64.b64encode(audio[:size]))
        if not texts and not last:
            return
        self.given.add(part)
        self.waiting += texts
        self.delivery.give(part, b"".join(texts), last=last)
        self.write()

    def write(self) -> None:
        """The socket is looked at."""
        written = self.delivery.write(self.backlog_bytes, now_us=self.now_us)
        if written is not None:
            assert self.backlog_bytes < SOCKET_AHEAD_BYTES
            assert len(written.frames) < SOCKET_AHEAD_BYTES + 2 * PIECE_CHARS
            self.backlog_bytes += len(written.frames)
            self.written(written.frames)
        self.look()

    def echo(self, at: int) -> None:
        """A mark comes back, as a rule the next one."""
        self.delivery.receive_mark(self.marks.pop(at), now_us=self.now_us)
        self.look()

    def interrupt(self) -> None:
        """The caller speaks."""
        self.asked.append(len(self.asked) + 1)
        barge_in = BargeIn(
            interrupt_id=self.asked[-1], onset_ms=None, detection_us=0, worker_us=0, link_us=None,
            arrived_us=self.now_us, cleared_us=self.now_us,
        )  # fmt: skip
        frames = self.delivery.interrupt(barge_in, now_us=self.now_us)
        self.waiting.clear()
        self.cut |= self.given
        if frames:
            clear, fence = messages(frames)
            assert clear["event"] == "clear"
            assert fence["event"] == "mark"
            self.marks.append(fence["mark"]["name"])  # type: ignore[index]
        self.look()

    def end(self, *, hung_up: bool) -> None:
        """The end: everything is fixed, told and answered by then."""
        ended = self.delivery
        if hung_up:
            ended.stop(now_us=self.now_us)
        ended.drop(now_us=self.now_us)
        ended.fix_waiting(Cause.HUNG_UP if hung_up else Cause.DROPPED)
        self.look()
        ended.close(now_us=self.now_us)
        self.look()
        assert set(self.fixed) == self.given, "every part given is fixed"
        assert self.told == self.fixed, "and told"
        assert sorted(self.answered) == self.asked, "every interrupt is answered"


@pytest.mark.parametrize("seeds", range(8))
def test_whatever_happens(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are fixed and interrupts answered once, and what is written is what was given, in
    order."""
    monkeypatch.setattr(delivery, "MAX_UNSENT_BYTES", MAX_UNSENT_BYTES)
    interrupted = fixed = 0
    for seed in range(seeds * CALLS, (seeds + 1) * CALLS):
        world = World(seed)
        for _ in range(world.random.randint(1, STEPS)):
            world.step()
        world.end(hung_up=world.random.random() < 0.5)
        interrupted += len(world.asked)
        fixed += len(world.fixed)
    assert interrupted > CALLS // 2 and fixed > CALLS, "there is something to see"


def test_audio_that_waits_is_bounded_and_the_rest_of_its_part_is_dropped_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "MAX_UNSENT_BYTES", 8 * 1_000)
    one = Delivery("MZ1", MediaClock())
    said = [one.give(PARTS[0], base64.b64encode(bytes(8 * 300)), last=False) for _ in range(6)]
    assert said == [True, True, True, False, True, True], "said once"
    assert one.give(PARTS[1], base64.b64encode(bytes(8 * 100)), last=True), "another has room"
    written_bytes, now_us = 0, 0
    while (written := one.write(0, now_us=now_us)) is not None:
        written_bytes += written.audio_bytes
        now_us += 1
        one.handle_timer(now_us=now_us)
    assert written_bytes == 8 * 1_000
    one.drop(now_us=now_us)
    one.close(now_us=now_us)
    unheard = {
        answer.fixed.position.part: answer.unheard_ms + answer.fixed.position.best_ms
        for answer in one.answers(now_us=now_us)
        if isinstance(answer, PartFixed)
    }
    assert unheard == {PARTS[0]: 1_800, PARTS[1]: 100}, "what was dropped counts as unheard"


def test_what_raises_at_the_end_leaves_no_interrupt_unanswered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Delivery("MZ1", MediaClock())
    one.give(PARTS[0], base64.b64encode(bytes(800)), last=True)
    assert one.write(0, now_us=0) is not None
    barge_in = BargeIn(
        interrupt_id=7, onset_ms=None, detection_us=0, worker_us=0, link_us=None,
        arrived_us=1, cleared_us=1,
    )  # fmt: skip
    assert one.interrupt(barge_in, now_us=1)
    assert one.answers(now_us=1) == [], "the clear is not settled"

    def refuse(self: Playhead, *, now_us: int) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Playhead, "drop", refuse)
    with pytest.raises(ZeroDivisionError):
        one.drop(now_us=2)
    one.close(now_us=2)
    answers = one.answers(now_us=2)
    told = [answer for answer in answers if isinstance(answer, TellPositions)]
    assert told == [TellPositions(7, Cause.CLEARED, [])]
    assert barge_in in answers
