"""Which calls run, and how the latest ended."""

from __future__ import annotations

from asheard.v1 import fact_pb2
from gateway.registry import Registry

DROPPED = fact_pb2.CALL_OUTCOME_DROPPED
COMPLETED = fact_pb2.CALL_OUTCOME_COMPLETED


class FakeCall:
    def __init__(self, stream_sid: str = "MZ1", stream_number: int = 1) -> None:
        self.stream_sid = stream_sid
        self.stream_number = stream_number
        self.told = False
        self.superseded = False
        self.said: list[str] = []

    def supersede(self) -> None:
        self.superseded = True

    def cut(self) -> None:
        raise AssertionError("nothing raised")

    def stream_stopped(self) -> None:
        self.said.append("stopped")

    def stream_failed(self) -> None:
        self.said.append("failed")

    def call_over(self) -> None:
        self.said.append("over")

    def abort(self) -> None:
        raise AssertionError("nobody asked for it")

    def fail(self) -> None:
        raise AssertionError("nothing is wrong with it")


async def test_an_ending_is_known_until_the_call_has_a_new_stream() -> None:
    registry, first, second = Registry(), FakeCall(), FakeCall()
    registry.opened(first)
    registry.started(first, "CA1")
    assert registry.ending("CA1") is None
    registry.ended(first, "CA1", DROPPED)
    assert registry.ending("CA1") == DROPPED
    registry.started(second, "CA1")
    assert registry.ending("CA1") is None
    assert not first.superseded


async def test_that_the_caller_was_told_is_known_with_the_ending() -> None:
    registry, told, silent = Registry(), FakeCall(), FakeCall()
    told.told = True
    registry.started(told, "CA1")
    assert not registry.was_told("CA1")
    registry.ended(told, "CA1", DROPPED)
    assert registry.was_told("CA1") and not registry.was_told("CA2")
    registry.started(silent, "CA1")
    registry.ended(silent, "CA1", DROPPED)
    assert not registry.was_told("CA1")


async def test_a_newer_stream_of_the_same_call_ends_the_older_and_has_the_last_word() -> None:
    registry, older, newer = Registry(), FakeCall(), FakeCall()
    registry.started(older, "CA1")
    registry.started(newer, "CA1")
    assert older.superseded and not newer.superseded
    registry.ended(newer, "CA1", COMPLETED)
    registry.ended(older, "CA1", DROPPED)
    assert registry.ending("CA1") == COMPLETED


async def test_it_is_empty_when_the_last_socket_is_closed() -> None:
    registry, call = Registry(), FakeCall()
    await registry.wait_empty()
    registry.opened(call)
    assert (len(registry), list(registry)) == (1, [call])
    registry.closed(call)
    await registry.wait_empty()


async def test_a_callback_ends_its_own_stream_and_no_newer_one() -> None:
    registry, older, newer = Registry(), FakeCall("MZ1", 1), FakeCall("MZ2", 2)
    assert not registry.stream_stopped("CA1", "MZ1"), "none of ours"
    registry.started(older, "CA1")
    assert registry.stream_stopped("CA1", "MZ1")
    assert registry.stream_stopped("CA1", "MZ1", failed=True)
    assert older.said == ["stopped", "failed"]
    registry.started(newer, "CA1")
    assert not registry.stream_stopped("CA1", "MZ1")
    registry.stream_lost("CA1", 1)
    assert (newer.said, newer.superseded) == ([], False)
    registry.stream_lost("CA1", 2)
    assert [newer.superseded] == [True]
    registry.ended(newer, "CA1", DROPPED)
    assert registry.stream_stopped("CA1", "MZ2"), "it is over, and needs no announcement"
    assert not registry.stream_stopped("CA1", "MZ3")


async def test_the_end_of_a_call_ends_whichever_stream_it_has() -> None:
    registry, call = Registry(), FakeCall("MZ1", 1)
    assert not registry.call_over("CA1", 1)
    registry.started(call, "CA1")
    assert registry.call_over("CA1", 1)
    assert call.said == ["over"]
    registry.ended(call, "CA1", COMPLETED)
    assert registry.call_over("CA1", 1)
    assert not registry.call_over("CA1", 2), "another gateway has a newer stream"
