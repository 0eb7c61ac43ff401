"""What waits to be said to one worker: where frames and control go, state by state."""

from __future__ import annotations

from typing import cast

import pytest

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.lane import (
    BATCH_FRAMES,
    CLOSING,
    DIRECT_BYTES,
    ENDED,
    KEPT_BYTES,
    KEPT_FRAMES,
    LOST,
    MAX_CONTROLS,
    MAX_FRAME_BYTES,
    NEXT_STATES,
    OFFERED,
    OPEN,
    QUEUED,
    TURN_FRAMES,
    WAITING,
    Lane,
    LaneListener,
    LaneState,
)
from gateway.outgoing import (
    MAX_ANNOUNCED,
    MAX_CONTROL_BYTES,
    MESSAGE_BYTES,
    Message,
    Outgoing,
    sound_frames,
    to_request,
)

COMPLETED = fact_pb2.CALL_OUTCOME_COMPLETED
REFUSED = fact_pb2.CALL_OUTCOME_REFUSED


class Stage:
    """One worker's outgoing, and what it asked of the link."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dropped: list[tuple[Lane, str]] = []
        self.outgoing = Outgoing(
            control_waits=lambda: self.asked.append("control"),
            audio_waits=lambda: self.asked.append("audio"),
            control_dropped=lambda lane, control: self.dropped.append(
                (lane, str(control.WhichOneof("body")))
            ),
        )

    def lane(self, number: int = 0) -> Lane:
        """One in WAITING. Nothing here calls the listener."""
        return Lane(cast(LaneListener, object()), f"CA{number}", f"MZ{number}")

    def offered(self, number: int = 0) -> Lane:
        lane = self.lane(number)
        self.outgoing.offer(lane)
        self.messages()
        return lane

    def opened(self, calls: int) -> list[Lane]:
        lanes = [self.offered(number) for number in range(calls)]
        for lane in lanes:
            assert self.outgoing.accept(lane)
        self.asked.clear()
        return lanes

    def messages(self) -> list[Message]:
        """All that waits."""
        taken = []
        while (message := self.outgoing.next_message()) is not None:
            taken.append(message)
        return taken


@pytest.fixture
def stage() -> Stage:
    return Stage()


def key() -> session_service_pb2.GatewayControl:
    pressed = session_service_pb2.CallerKeyPressed(digit="5")
    return session_service_pb2.GatewayControl(key_pressed=pressed)


def positions(items: int = 0) -> session_service_pb2.GatewayControl:
    control = session_service_pb2.GatewayControl(
        positions_fixed=session_service_pb2.PositionsFixed()
    )
    for number in range(items):
        control.positions_fixed.positions.add(item_id="i" * 40, content_index=number)
    return control


def frames(*messages: Message) -> list[tuple[int, int]]:
    """Call and timestamp of each."""
    return [(frame[0], frame[2]) for message in messages for frame in message.frames]


def kinds(message: Message) -> list[str]:
    return [str(control.WhichOneof("body")) for control in message.control]


def payload_bytes(message: Message) -> int:
    return sum(len(frame[1]) for frame in message.frames)


def in_state(stage: Stage, state: LaneState) -> Lane:
    """A lane that came there as calls do."""
    if state is WAITING:
        return stage.lane()
    if state is OFFERED:
        return stage.offered()
    (lane,) = stage.opened(1)
    if state in (QUEUED, CLOSING):
        for ms in range(TURN_FRAMES + 1):
            lane.send_audio(b"AAAA", ms, 1)
    if state in (CLOSING, ENDED):
        lane.close(COMPLETED)
    if state is LOST:
        stage.outgoing.lose()
    assert lane.state is state
    return lane


@pytest.mark.parametrize("state", LaneState, ids=lambda state: state.name)
def test_a_frame_and_control_go_where_the_table_says(stage: Stage, state: LaneState) -> None:
    lane = in_state(stage, state)
    stage.messages() if state is OPEN else None
    kept, direct = lane.waiting_frames, len(stage.outgoing.frames)
    assert lane.send_audio(b"AAAA", 99, 1)
    lane.send(key())
    went = lane.waiting_frames - kept, len(stage.outgoing.frames) - direct
    assert went == {WAITING: (1, 0), OFFERED: (1, 0), OPEN: (0, 1), QUEUED: (1, 0)}.get(
        state, (0, 0)
    )
    message = stage.outgoing.next_message()
    said = kinds(message) if message is not None else []
    assert ("key_pressed" in said) is (state in (OPEN, QUEUED))


@pytest.mark.parametrize("state", LaneState, ids=lambda state: state.name)
def test_a_call_is_over_from_every_state_and_the_worker_hears_it_once(
    stage: Stage, state: LaneState
) -> None:
    lane = in_state(stage, state)
    lane.close(COMPLETED)
    lane.close(REFUSED)
    assert lane.outcome == COMPLETED, "the first word counts"
    said = [kind for message in stage.messages() for kind in kinds(message)]
    told = 0 if state in (WAITING, LOST) else 1  # else there is nobody to tell
    if state is ENDED:
        told = 1
    assert said.count("close_call") == told
    assert lane.state is ENDED
    assert not stage.outgoing.lanes
    assert not hasattr(lane, "listener"), "both are freed at once"
    stage.outgoing.lose()
    assert lane.state is ENDED


def test_no_other_ways_lead_from_state_to_state(stage: Stage) -> None:
    for state in LaneState:
        for target in set(LaneState) - NEXT_STATES[state]:
            lane = in_state(Stage(), state)
            with pytest.raises(AssertionError, match=f"from {state.name} to {target.name}"):
                lane.enter(target)


def test_what_a_worker_says_of_a_call_counts_only_when_it_was_asked(stage: Stage) -> None:
    (lane,) = stage.opened(1)
    assert not stage.outgoing.accept(lane)
    assert not stage.outgoing.refuse(lane)
    assert not stage.outgoing.withdraw(lane)
    assert lane.state is OPEN


def test_a_refused_call_keeps_its_audio_and_keys_for_the_next_worker(stage: Stage) -> None:
    lane, other = stage.offered(), Stage()
    lane.send_audio(b"AAAA", 1, 1)
    lane.send(key())
    assert stage.outgoing.refuse(lane)
    assert not stage.messages()
    lane.send_audio(b"AAAA", 2, 1)
    other.outgoing.offer(lane)
    (offer,) = other.messages()
    assert kinds(offer) == ["open_call"]
    assert offer.control[0].open_call.call_sid == "CA0"
    assert other.outgoing.accept(lane)
    (message,) = other.messages()
    assert kinds(message) == ["key_pressed"]
    assert frames(message) == [(lane.handle, 1), (lane.handle, 2)]
    assert lane.state is OPEN


def test_a_worker_that_does_not_answer_is_told_that_there_is_no_call(stage: Stage) -> None:
    lane = stage.offered()
    assert stage.outgoing.withdraw(lane)
    assert lane.state is WAITING
    (message,) = stage.messages()
    assert message.control[0].close_call.outcome == REFUSED
    assert not stage.outgoing.withdraw(lane)


def test_what_comes_while_a_message_is_written_is_all_in_the_next(stage: Stage) -> None:
    lanes = stage.opened(3)
    for ms in range(1, 8):
        for lane in lanes:
            assert lane.send_audio(b"AAAA", ms, 1)
    assert stage.asked == ["audio"], "one request for all of them"
    (message,) = stage.messages()
    assert frames(message) == [(lane.handle, ms) for ms in range(1, 8) for lane in lanes]
    assert not any(lane.waiting_frames for lane in lanes)


def test_control_is_before_audio_and_the_end_in_a_later_message(stage: Stage) -> None:
    (lane,) = stage.opened(1)
    lane.send_audio(b"AAAA", 1, 1)
    lane.send(key())
    assert stage.asked == ["audio", "control"]
    lane.close(COMPLETED)
    following = stage.messages()
    assert [kinds(message) for message in following] == [["key_pressed"], ["close_call"]]
    assert [frames(message) for message in following] == [[(lane.handle, 1)], []]


def test_who_is_late_catches_up_in_few_messages_and_in_order(stage: Stage) -> None:
    calls, each = 20, 200
    lanes = stage.opened(calls)
    for ms in range(1, each + 1):
        for lane in lanes:
            assert lane.send_audio(b"AAAA", ms, 1)
    caught_up = stage.messages()
    assert max(len(message.frames) for message in caught_up) <= BATCH_FRAMES
    assert len(caught_up) <= 2 + calls * each // BATCH_FRAMES
    came = frames(*caught_up)
    for lane in lanes:
        assert [ms for call, ms in came if call == lane.handle] == list(range(1, each + 1))
        assert lane.state is OPEN, "and then frames go at once again"


def test_a_worker_that_takes_nothing_loses_the_oldest_of_each_call(stage: Stage) -> None:
    lanes = stage.opened(2)
    in_message = BATCH_FRAMES // 2
    dropped = [
        lane.send_audio(b"AAAA", ms, 1)
        for ms in range(in_message + KEPT_FRAMES + 3)
        for lane in lanes
    ].count(False)
    assert dropped == 2 * 3
    came = frames(*stage.messages())
    for lane in lanes:
        kept = [ms for call, ms in came if call == lane.handle]
        assert kept == [*range(in_message), *range(in_message + 3, in_message + KEPT_FRAMES + 3)]


def test_a_lost_link_forgets_what_nobody_will_take(stage: Stage) -> None:
    open_, queued, closing = stage.opened(3)
    asked = stage.offered(3)
    for lane in (queued, closing, open_):
        for ms in range(TURN_FRAMES + 1 if lane is not open_ else 1):
            lane.send_audio(b"AAAA", ms, 1)
    open_.send(key())
    closing.close(COMPLETED)
    assert stage.outgoing.lose() == [open_, queued, asked]
    states = [lane.state for lane in (open_, queued, closing, asked)]
    assert states == [LOST, LOST, ENDED, WAITING]
    assert not stage.outgoing.waits
    assert open_.send_audio(b"AAAA", 2, 1)
    open_.send(key())
    open_.close(fact_pb2.CALL_OUTCOME_SESSION_LOST)
    assert not stage.messages()


def test_long_frames_cost_their_own_call_alone(stage: Stage) -> None:
    loud, quiet, other = stage.opened(3)
    for ms in range(1, KEPT_FRAMES):  # in frames of 6 s
        loud.send_audio(b"A" * MAX_FRAME_BYTES, ms, 1)
        assert quiet.send_audio(b"AAAA", ms, 1)
    too_long = b"A" * (MAX_FRAME_BYTES + 1)
    assert not loud.send_audio(too_long, KEPT_FRAMES, 1), "longer than is passed on"
    assert loud.waiting_frames == 1 == KEPT_BYTES // MAX_FRAME_BYTES
    other.send_audio(b"AAAA", 1, 1)
    messages = stage.messages()
    assert max(map(payload_bytes, messages)) <= MESSAGE_BYTES + KEPT_BYTES
    came = frames(*messages)
    assert [ms for call, ms in came if call == quiet.handle] == list(range(1, KEPT_FRAMES))
    assert [ms for call, ms in came if call == loud.handle] == [KEPT_FRAMES - 1], "the newest"
    assert (other.handle, 1) in came
    loud.send_audio(b"A" * DIRECT_BYTES, 500, 1)
    assert frames(*stage.messages()) == [(loud.handle, 500)], "and then as before"


def test_bytes_beyond_a_message_go_into_the_next_in_order_with_the_end_after(stage: Stage) -> None:
    lanes = stage.opened(2)
    for ms in range(1, BATCH_FRAMES // 2):
        for lane in lanes:
            lane.send_audio(b"A" * DIRECT_BYTES, ms, 1)
    lanes[0].close(COMPLETED)
    lanes[1].send(key())
    messages = stage.messages()
    assert max(map(payload_bytes, messages)) <= MESSAGE_BYTES
    assert len(messages) == 3
    for lane in lanes:
        came = [ms for call, ms in frames(*messages) if call == lane.handle]
        assert came == list(range(1, BATCH_FRAMES // 2))
    assert [kinds(message) for message in messages] == [["key_pressed"], [], ["close_call"]]
    assert not messages[-1].frames


def test_much_control_is_dropped_for_its_own_call_and_split_into_messages(stage: Stage) -> None:
    loud, quiet = stage.opened(2)
    for _ in range(MAX_CONTROLS + 30):
        loud.send(key())
    quiet.send(key())
    (message,) = stage.messages()
    assert len(message.control) == MAX_CONTROLS + 1
    assert stage.dropped == [(loud, "key_pressed")] * 30

    stage.dropped.clear()
    quiet.send_audio(b"AAAA", 1, 1)
    large = positions(7000)
    for _ in range(MAX_CONTROLS + 1):
        loud.send(large)
    assert stage.dropped == [(loud, "positions_fixed")]
    messages = stage.messages()
    assert max(to_request(message).ByteSize() for message in messages) < 2 * MESSAGE_BYTES
    assert sum(len(message.control) for message in messages) == MAX_CONTROLS
    assert [bool(message.frames) for message in messages] == [*[False] * (len(messages) - 1), True]
    loud.send(key())
    assert [kinds(message) for message in stage.messages()] == [["key_pressed"]], "room again"


def test_control_that_is_too_large_is_dropped(stage: Stage) -> None:
    (lane,) = stage.opened(1)
    huge = positions(100_000)
    assert huge.ByteSize() > MAX_CONTROL_BYTES
    lane.send(huge)
    assert stage.dropped == [(lane, "positions_fixed")]
    assert not stage.messages()


def test_control_before_a_worker_took_the_call_is_bounded(stage: Stage) -> None:
    lane = stage.lane()
    for _ in range(MAX_CONTROLS + 30):
        lane.send(key())
    stage.outgoing.offer(lane)
    stage.outgoing.accept(lane)
    (message,) = stage.messages()
    assert len(message.control) == 1 + MAX_CONTROLS
    assert not stage.dropped


def test_announcements_are_bounded(stage: Stage) -> None:
    stopped = session_service_pb2.StreamStopped(call_sid="CA1")
    for _ in range(MAX_ANNOUNCED + 5):
        stage.outgoing.announce(stopped)
    assert sum(len(message.control) for message in stage.messages()) == MAX_ANNOUNCED


def test_a_request_has_every_frame_in_columns(stage: Stage) -> None:
    message = Message([key()], [(1, b"AAAA", 20, 5), (2, b"BBBB", 40, 6)])
    request = to_request(message)
    assert list(request.control) == message.control
    audio = request.caller_audio
    assert list(audio.call) == [1, 2]
    assert list(audio.payload) == [b"AAAA", b"BBBB"]
    assert list(audio.media_ms) == [20, 40]
    assert list(audio.received_unix_us) == [5, 6]
    assert not to_request(Message([key()], [])).HasField("caller_audio")


def test_a_frame_that_cannot_be_in_a_request_is_found() -> None:
    good, bad, ugly = (1, b"AAAA", 1, 1), (2, b"AAAA", 2**70, 1), (3, "AAAA\ud800", 1, 1)
    message = Message([], [good, bad, cast("tuple[int, bytes, int, int]", ugly), good])
    with pytest.raises(Exception):  # noqa: B017
        to_request(message)
    assert sound_frames(message.frames) == ([good, good], {2, 3})
