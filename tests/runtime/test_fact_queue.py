"""What waits, what goes next and what is given up: by cases, and for any order of answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asheard.v1 import fact_pb2, ingest_service_pb2
from runtime import fact_queue
from runtime.fact_queue import FactQueue, Kept, Loss, Next, Verdict


def posted(queue: FactQueue, number: int, *, size: int = 10, at_s: float = 0.0) -> Loss | None:
    body = {"item_generated": fact_pb2.ItemGenerated(item_id="i", text="x" * size)}
    return queue.post("CA1", "session/1", number, body, recorded_ns=1, at_s=at_s)


def queue_of(count: int, *, size: int = 10) -> FactQueue:
    queue = FactQueue()
    for number in range(1, count + 1):
        assert posted(queue, number, size=size) is None
    return queue


def facts_of(batch: Sequence[Kept]) -> list[fact_pb2.Fact]:
    joined = b"".join(kept.data for kept in batch)
    return list(ingest_service_pb2.AppendFactsRequest.FromString(joined).facts)


def numbers(batch: Sequence[Kept]) -> list[int]:
    return [fact.sequence for fact in facts_of(batch)]


def is_stand_in(fact: fact_pb2.Fact) -> bool:
    return fact.HasField("fact_dropped")


# Bounds


def test_a_batch_is_bounded_in_number_and_in_bytes() -> None:
    assert numbers(queue_of(1_500).next_batch()) == list(range(1, 1_001))
    batch = queue_of(20, size=200_000).next_batch()
    assert sum(len(kept.data) for kept in batch) <= fact_queue.MAX_BATCH_BYTES
    assert numbers(batch) == [1, 2, 3, 4, 5]


def test_a_fact_that_is_larger_than_a_batch_still_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_queue, "MAX_BATCH_BYTES", 10)
    assert numbers(queue_of(2, size=100).next_batch()) == [1]


def test_beyond_what_may_be_kept_the_newest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_queue, "MAX_KEPT_FACTS", 2)
    queue = queue_of(2)
    loss = posted(queue, 3)
    assert loss is not None and (loss.sequence, loss.reason) == (3, "full")
    assert queue.fullness == 1.0
    assert numbers(queue.next_batch()) == [1, 2]


def test_the_age_is_that_of_the_oldest_even_of_one_that_is_put_off() -> None:
    queue = FactQueue()
    assert queue.oldest_s(9.0) == 0.0
    posted(queue, 1, at_s=1.0)
    queue.refused(queue.next_batch(), Verdict.UNCLEAR, "INTERNAL")
    posted(queue, 2, at_s=3.0)
    assert queue.oldest_s(9.0) == 8.0


# Answers, as the table has them


@pytest.mark.parametrize(
    ("verdict", "when"),
    [
        (Verdict.AWAY, Next.LATER),
        (Verdict.REFUSED, Next.AT_ONCE),
        (Verdict.TOO_LARGE, Next.AT_ONCE),
        (Verdict.UNCLEAR, Next.SOON),
    ],
)
def test_several_are_halved(verdict: Verdict, when: Next) -> None:
    queue = queue_of(8)
    assert queue.refused(queue.next_batch(), verdict, "X") == (when, [])
    assert numbers(queue.next_batch()) == [1, 2, 3, 4]


def test_after_each_success_twice_as_many_go() -> None:
    queue = queue_of(100)
    for _ in range(7):
        queue.refused(queue.next_batch(), Verdict.REFUSED, "X")
    sizes = []
    while batch := queue.next_batch():
        sizes.append(len(batch))
        queue.taken(batch, {})
    assert sizes == [1, 2, 4, 8, 16, 32, 37]


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Verdict.REFUSED, "rejected"), (Verdict.TOO_LARGE, "too_large")]
)
def test_one_that_is_refused_is_given_up_when_its_stand_in_is_taken(
    verdict: Verdict, reason: str
) -> None:
    queue = queue_of(1)
    assert queue.refused(queue.next_batch(), verdict, "OUT_OF_RANGE") == (Next.AT_ONCE, [])
    [fact] = facts_of(batch := queue.next_batch())
    assert is_stand_in(fact) and fact.sequence == 1 and fact.fact_dropped.body == "item_generated"
    [loss] = queue.taken(batch, {})
    assert (loss.sequence, loss.reason, loss.why) == (1, reason, "OUT_OF_RANGE")
    assert len(queue) == queue.size_bytes == 0


def test_one_whose_stand_in_is_refused_too_stays_while_no_others_are_taken() -> None:
    queue = queue_of(2)
    queue.refused(queue.next_batch(), Verdict.REFUSED, "X")  # both: one at a time
    queue.refused(queue.next_batch(), Verdict.REFUSED, "X")
    stand_in = queue.next_batch()
    assert queue.refused(stand_in, Verdict.REFUSED, "X") == (Next.LATER, [])
    [second] = facts_of(batch := queue.next_batch())
    assert second.sequence == 2, "the others go first"
    queue.taken(batch, {})
    [first] = facts_of(batch := queue.next_batch())
    assert first.sequence == 1 and not is_stand_in(first)
    queue.refused(batch, Verdict.REFUSED, "X")
    when, losses = queue.refused(queue.next_batch(), Verdict.REFUSED, "X")
    assert when is Next.AT_ONCE
    assert [(loss.sequence, loss.reason) for loss in losses] == [(1, "rejected"), (1, None)]
    assert not len(queue)


def test_one_that_may_be_guilty_lets_others_go_first_and_is_given_up_the_fifth_time() -> None:
    queue = queue_of(1)
    for _ in range(fact_queue.MAX_UNCLEAR_REFUSALS - 1):
        assert numbers(batch := queue.next_batch()) == [1]
        posted(queue, 2)
        assert queue.refused(batch, Verdict.UNCLEAR, "X") == (Next.LATER, [])
        assert numbers(batch := queue.next_batch()) == [2]
        queue.taken(batch, {})
    assert queue.refused(queue.next_batch(), Verdict.UNCLEAR, "X") == (Next.AT_ONCE, [])
    assert is_stand_in(facts_of(queue.next_batch())[0])


def test_what_is_rejected_of_a_batch_that_is_taken_is_replaced_in_order() -> None:
    queue = queue_of(4)
    losses = queue.taken(queue.next_batch(), {1: "no", 3: "no"})
    assert sorted((loss.sequence, loss.reason) for loss in losses) == [
        (2, "rejected"),
        (4, "rejected"),
    ]
    batch = queue.next_batch()
    assert numbers(batch) == [2, 4] and all(map(is_stand_in, facts_of(batch)))
    losses = queue.taken(batch, {0: "not even that"})
    assert [(loss.sequence, loss.reason) for loss in losses] == [(2, None)]


def test_a_sign_of_life_that_is_refused_gives_nothing_up() -> None:
    queue = FactQueue()
    assert queue.next_batch() == []
    for verdict in Verdict:
        assert queue.refused([], verdict, "X") == (Next.LATER, [])


# For any order of answers

ANSWERS = st.lists(
    st.one_of(
        st.sampled_from(list(Verdict)),
        st.just("post"),
        st.just("taken"),
        st.sets(st.integers(0, 5), max_size=3),
    ),
    max_size=60,
)


@given(ANSWERS)
def test_every_number_waits_or_is_durable_or_accounted_for_and_none_is_twice(
    answers: list[Verdict | str | set[int]],
) -> None:
    queue = queue_of(3)
    written = 3
    durable: list[int] = []
    unsaid: list[int] = []
    given_up: list[int] = []

    def note(losses: Sequence[Loss]) -> None:
        for loss in losses:
            (unsaid if loss.reason is None else given_up).append(loss.sequence)

    for answer in answers:
        batch = queue.next_batch()
        if answer == "post":
            written += 1
            assert posted(queue, written) is None
        elif isinstance(answer, Verdict):
            _, losses = queue.refused(batch, answer, "X")
            note(losses)
        else:
            rejected = answer if isinstance(answer, set) else set()
            durable += [n for i, n in enumerate(numbers(batch)) if i not in rejected]
            note(queue.taken(batch, dict.fromkeys(rejected, "no")))
        waiting = queue.next_batch()
        assert len(waiting) > 0 or not len(queue)
        assert len(waiting) == 1 or not any(kept.refusals for kept in waiting), "suspects are alone"

    for _ in range(1_000):  # in the end all is taken
        if not (batch := queue.next_batch()):
            break
        durable += numbers(batch)
        note(queue.taken(batch, {}))
    assert len(queue) == queue.size_bytes == 0
    assert sorted(durable + unsaid) == list(range(1, written + 1))
    assert len(given_up) == len(set(given_up))
    assert set(unsaid) <= set(given_up)


@given(st.integers(2, 200), st.data())
def test_guilty_facts_are_found_in_few_requests_and_nobody_else_is_given_up(
    count: int, data: st.DataObject
) -> None:
    guilty = data.draw(st.sets(st.integers(1, count), max_size=3))
    verdict = data.draw(st.sampled_from([Verdict.REFUSED, Verdict.TOO_LARGE]))
    queue = queue_of(count)
    taken: list[fact_pb2.Fact] = []
    lost: list[int] = []
    requests = 0
    while batch := queue.next_batch():
        requests += 1
        facts = facts_of(batch)
        if any(fact.sequence in guilty and not is_stand_in(fact) for fact in facts):
            lost += [loss.sequence for loss in queue.refused(batch, verdict, "X")[1]]
        else:
            taken += facts
            lost += [loss.sequence for loss in queue.taken(batch, {})]
    assert [fact.sequence for fact in taken] == list(range(1, count + 1)), "in order"
    assert {fact.sequence for fact in taken if is_stand_in(fact)} == guilty == set(lost)
    assert requests <= 10 + 25 * len(guilty)
