"""Which calls run, and how the latest ended."""

from __future__ import annotations

from asheard.v1 import fact_pb2
from gateway.registry import Registry

DROPPED = fact_pb2.CALL_OUTCOME_DROPPED
COMPLETED = fact_pb2.CALL_OUTCOME_COMPLETED


class FakeCall:
    def __init__(self) -> None:
        self.superseded = False

    def supersede(self) -> None:
        self.superseded = True

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
