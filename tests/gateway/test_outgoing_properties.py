"""Whatever calls and a worker do, in whatever order: what is said to the worker is whole.

Bounds are small here, so that a few steps reach all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asheard.v1 import fact_pb2, session_service_pb2
from gateway import lane, outgoing
from gateway.lane import LOST, OFFERED, WAITING, Lane, LaneListener
from gateway.outgoing import Message, Outgoing
from tests.examples import examples

BOUNDS = {
    "KEPT_FRAMES": 6,
    "KEPT_BYTES": 80,
    "MAX_FRAME_BYTES": 80,
    "DIRECT_BYTES": 10,
    "BATCH_FRAMES": 12,
    "MESSAGE_BYTES": 100,
    "ALWAYS_FITTING_FRAMES": 10,
    "TURN_FRAMES": 3,
    "MAX_CONTROLS": 4,
}
LANES = st.integers(0, 3)
COMPLETED = fact_pb2.CALL_OUTCOME_COMPLETED


@pytest.fixture(autouse=True, scope="module")
def small_bounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in BOUNDS.items():
            for module in (lane, outgoing):
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield


class Told:
    """What one call was to say, and what became of it."""

    def __init__(self, number: int) -> None:
        self.lane = Lane(cast(LaneListener, object()), f"CA{number}", f"MZ{number}")
        self.sent: list[int] = []
        """Timestamps of frames that were to go to the worker."""
        self.dropping = False
        """Whether a frame was said to be dropped."""
        self.one_size = True
        self.drops = 0
        self.accepted = False
        self.said: list[int] = []
        self.keys = 0


class SaidToOneWorker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.outgoing = Outgoing(
            control_waits=lambda: None, audio_waits=lambda: None, control_dropped=self._dropped
        )
        self.calls = [Told(number) for number in range(4)]
        self.by_handle: dict[int, Told] = {}
        self.over: Counter[int] = Counter()
        """Handles of calls that are over for the worker, which has to hear so once."""
        self.heard_over: Counter[int] = Counter()
        self.keys_waiting: Counter[int] = Counter()
        self.clock_ms = 0

    def _dropped(self, its: Lane, control: session_service_pb2.GatewayControl) -> None:
        self.by_handle[its.handle].keys -= 1
        self.keys_waiting[its.handle] -= 1

    # -- what calls and the worker do

    @initialize(open_=st.integers(1, 3))
    def begin(self, open_: int) -> None:
        """Most of the time a worker has the call."""
        for number in range(open_):
            self.worker(number, "takes it")
            self.worker(number, "takes it")

    @rule(number=LANES, answer=st.sampled_from(["takes it", "takes it", "refuses", "is silent"]))
    def worker(self, number: int, answer: str) -> None:
        """A worker is asked, or answers."""
        call = self.calls[number]
        its, handle = call.lane, call.lane.handle
        if its.state is WAITING:
            self.outgoing.offer(its)
            self.by_handle[its.handle] = call
        elif its.state is not OFFERED:
            assert not self.outgoing.accept(its)
        elif answer == "takes it":
            assert self.outgoing.accept(its)
            call.accepted = True
            self.keys_waiting[handle] = call.keys
        elif answer == "refuses":
            assert self.outgoing.refuse(its)
        else:
            assert self.outgoing.withdraw(its)
            self.over[handle] += 1

    @rule(number=LANES, frames=st.integers(1, 9), size=st.sampled_from([4, 4, 4, 10, 11, 60, 81]))
    def speak(self, number: int, frames: int, size: int) -> None:
        call = self.calls[number]
        call.one_size &= size == 4
        for _ in range(frames):
            self.clock_ms += 20
            kept = call.lane.send_audio(b"A" * size, self.clock_ms, 1)
            if call.lane.outcome is None and call.lane.state is not LOST:
                call.sent.append(self.clock_ms)
                call.dropping |= not kept
                call.drops += not kept

    @rule(number=LANES)
    def press(self, number: int) -> None:
        call = self.calls[number]
        alive = call.lane.outcome is None and call.lane.state is not LOST
        if alive and (call.accepted or call.keys < lane.MAX_CONTROLS):
            call.keys += 1
            if call.accepted:
                self.keys_waiting[call.lane.handle] += 1
        pressed = session_service_pb2.CallerKeyPressed(digit="5")
        call.lane.send(session_service_pb2.GatewayControl(key_pressed=pressed))

    @rule(number=LANES)
    def close(self, number: int) -> None:
        call = self.calls[number]
        if call.lane.outcome is None:
            if call.lane.state not in (WAITING, LOST):
                self.over[call.lane.handle] += 1
            call.lane.close(COMPLETED)

            self.calls.append(call)  # what it was to say is still looked at
            self.calls[number] = Told(len(self.calls))

    # -- what is said

    @rule()
    def take(self) -> None:
        message = self.outgoing.next_message()
        if message is not None:
            self._look_at(message)

    def _look_at(self, message: Message) -> None:
        assert message.control or message.frames
        all_but_last = sum(len(frame[1]) for frame in message.frames[:-1])
        assert all_but_last <= outgoing.MESSAGE_BYTES
        assert len(message.frames) <= lane.BATCH_FRAMES
        control = sum(one.ByteSize() for one in message.control)
        assert control <= outgoing.MESSAGE_BYTES or len(message.control) == 1
        for one in message.control:
            if one.HasField("key_pressed"):
                assert not self.heard_over[one.call]
                self.keys_waiting[one.call] -= 1
            if one.HasField("close_call"):
                assert not any(frame[0] == one.call for frame in message.frames)
                self.heard_over[one.call] += 1
        if message.frames:
            assert not any(self.keys_waiting.values()), "control is before audio"
        for handle, _, timestamp_ms, _ in message.frames:
            assert not self.heard_over[handle], "its end is after its audio"
            self.by_handle[handle].said.append(timestamp_ms)

    @invariant()
    def nobody_hears_twice_of_an_end(self) -> None:
        assert self.heard_over <= self.over

    @invariant()
    def frames_are_said_in_order_and_none_twice(self) -> None:
        for call in self.calls:
            sent = iter(call.sent)
            assert all(ms in sent for ms in call.said), "a subsequence"

    def teardown(self) -> None:
        while (message := self.outgoing.next_message()) is not None:
            self._look_at(message)
        assert not self.outgoing.waits
        assert self.heard_over == self.over, "each end is said once"
        self.frames_are_said_in_order_and_none_twice()
        for call in self.calls:
            if not call.accepted:
                assert not call.said
                continue
            missing = len(call.sent) - len(call.said)
            assert missing >= call.drops
            if call.one_size:
                assert missing == call.drops, "only what its own bound dropped"
            elif not call.dropping:
                assert missing == 0


SaidToOneWorker.TestCase.settings = settings(max_examples=examples(100), deadline=None)
TestSaidToOneWorker = SaidToOneWorker.TestCase


class Heaps:
    """Open lanes of one worker."""

    def __init__(self, calls: int) -> None:
        self.outgoing = Outgoing(
            control_waits=lambda: None,
            audio_waits=lambda: None,
            control_dropped=lambda its, control: None,
        )
        self.lanes = []
        for number in range(calls):
            its = Lane(cast(LaneListener, object()), f"CA{number}", f"MZ{number}")
            self.outgoing.offer(its)
            self.outgoing.accept(its)
            self.lanes.append(its)
        self.outgoing.next_message()

    def speak(self, call: int, frames: int) -> None:
        for ms in range(frames):
            self.lanes[call].send_audio(b"AAAA", ms, 1)

    def said(self) -> list[int]:
        """Whose frames come, in order."""
        handles = []
        while (message := self.outgoing.next_message()) is not None:
            handles += [frame[0] for frame in message.frames]
        return handles


@given(flood=st.integers(1, 40), others=st.integers(1, 3))
def test_a_flood_is_before_others_by_no_more_than_its_turn(flood: int, others: int) -> None:
    heaps = Heaps(1 + others)
    heaps.speak(0, flood)
    for other in range(1, 1 + others):
        heaps.speak(other, 1)
    said = heaps.said()
    flooding = heaps.lanes[0].handle
    before = said[: said.index(heaps.lanes[others].handle)]
    assert before.count(flooding) <= lane.TURN_FRAMES


@given(st.lists(st.integers(0, 6), min_size=2, max_size=4))
def test_lanes_that_wait_take_turns(waiting: list[int]) -> None:
    heaps = Heaps(len(waiting))
    for call, frames in enumerate(waiting):
        heaps.speak(call, lane.TURN_FRAMES + frames)
    said = heaps.said()[lane.TURN_FRAMES * len(waiting) :]
    left = Counter({heaps.lanes[call].handle: frames for call, frames in enumerate(waiting)})
    assert Counter(said) == +left
    for handle, run in groupby(said):
        length = len(list(run))
        left[handle] -= length
        if sum((+left).values()) > left[handle]:
            assert length <= lane.TURN_FRAMES, "a turn, while others wait"
