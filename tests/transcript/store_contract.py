"""What every store must do: one suite, inherited by the tests of each (integration)."""

from __future__ import annotations

import asyncio

import pytest

from asheard.v1.fact_pb2 import CallerTranscribed, Fact, SessionEnded
from asheard.v1.transcript_pb2 import CallState
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import NotFound
from tests.transcript.call_facts import START_S, Writer, short_call
from transcript.listing import is_listed
from transcript.store import (
    CallQuery,
    Cursor,
    OpenCall,
    Outcome,
    Store,
    WriterState,
    start_us,
)


def said(writer: Writer, text: str) -> Fact:
    """Any fact."""
    return writer.write(caller_transcribed=CallerTranscribed(item_id="i", text=text))


def summary(call_sid: str, start_s: int, number: str = "", state: int = 1) -> CallSummary:
    """An entry of the index."""
    entry = CallSummary(call_sid=call_sid, from_number=number, state=CallState.ValueType(state))
    entry.start_time.FromSeconds(start_s)
    return entry


class StoreContract:
    """Inherit, and give a fixture ``store``."""

    async def test_an_empty_append_is_nothing(self, store: Store) -> None:
        assert await store.append([]) == []

    async def test_facts_come_back_in_the_order_of_their_storing(self, store: Store) -> None:
        facts = short_call()
        assert await store.append(facts) == [Outcome.STORED] * len(facts)
        stored = await store.read("CA1")
        assert list(stored.facts) == facts
        assert stored.revision == len(facts)

    async def test_only_what_is_new_is_read(self, store: Store) -> None:
        session = Writer("CA1", "session/1")
        await store.append([said(session, "one"), said(session, "two")])
        revision = (await store.read("CA1")).revision
        await store.append([said(session, "three")])
        news = await store.read("CA1", after=revision)
        assert [fact.caller_transcribed.text for fact in news.facts] == ["three"]
        assert (await store.read("CA1", after=news.revision)).facts == ()

    async def test_a_repeat_adds_nothing(self, store: Store) -> None:
        facts = short_call()
        await store.append(facts)
        again = await store.append([*facts, *facts])
        assert again == [Outcome.REPEATED] * 2 * len(facts)
        assert (await store.read("CA1")).revision == len(facts)

    async def test_a_repeat_within_one_append_adds_nothing(self, store: Store) -> None:
        fact = said(Writer("CA1", "session/1"), "one")
        assert await store.append([fact, fact]) == [Outcome.STORED, Outcome.REPEATED]

    async def test_another_fact_under_the_same_number_is_refused(self, store: Store) -> None:
        first = said(Writer("CA1", "session/1"), "one")
        other = said(Writer("CA1", "session/1"), "another")
        same_number_of_another_writer = said(Writer("CA1", "session/2"), "another")
        await store.append([first])
        assert await store.append([other, same_number_of_another_writer]) == [
            Outcome.CONFLICTING,
            Outcome.STORED,
        ]
        texts = [fact.caller_transcribed.text for fact in (await store.read("CA1")).facts]
        assert texts == ["one", "another"]

    async def test_fields_that_we_do_not_know_are_kept(self, store: Store) -> None:
        fact = Fact(call_sid="CA1", writer="session/1", sequence=1)
        fact.MergeFromString(b"\xfa\x7f\x03new")  # field 2047, from a newer writer
        await store.append([fact])
        assert b"new" in (await store.read("CA1")).facts[0].SerializeToString()

    async def test_many_callers_at_once_all_get_their_own_answer(self, store: Store) -> None:
        calls = [short_call(f"CA{n}") for n in range(20)]
        stored, repeated = Outcome.STORED, Outcome.REPEATED
        answers = await asyncio.gather(*(store.append(facts) for facts in [*calls, *calls]))
        for first, second in zip(answers[:20], answers[20:], strict=True):
            assert {frozenset(first), frozenset(second)} == {
                frozenset([stored]),
                frozenset([repeated]),
            }
        for facts in calls:
            assert list((await store.read(facts[0].call_sid)).facts) == facts

    async def test_a_cancelled_append_disturbs_nobody(self, store: Store) -> None:
        hasty = asyncio.create_task(store.append(short_call("CA1")))
        patient = asyncio.create_task(store.append(short_call("CA2")))
        await asyncio.sleep(0)
        hasty.cancel()
        assert set(await patient) == {Outcome.STORED}
        assert set(await store.append(short_call("CA3"))) == {Outcome.STORED}

    async def test_an_unknown_call_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.read("CA404")
        with pytest.raises(NotFound):
            await store.delete("CA404")

    async def test_a_deleted_call_is_gone_and_stays_away(self, store: Store) -> None:
        facts = short_call()
        await store.append(facts[:-1])
        await store.append(short_call("CA2"))
        await store.delete("CA1")
        with pytest.raises(NotFound):
            await store.read("CA1")
        assert await store.append(facts) == [Outcome.DISCARDED] * len(facts)
        with pytest.raises(NotFound):
            await store.read("CA1")
        with pytest.raises(NotFound):
            await store.delete("CA1")
        assert (await store.read("CA2")).revision == len(facts)

    async def test_the_index_knows_when_it_is_old(self, store: Store) -> None:
        session = Writer("CA1", "session/1")
        await store.append([said(session, "one")])
        assert await store.unindexed() == ["CA1"]
        assert await store.index(summary("CA1", START_S), 1)
        assert await store.unindexed() == []
        await store.append([said(session, "two")])
        assert await store.unindexed() == []  # nothing that the list shows
        assert (await store.read("CA1")).indexed == 2
        await store.append([session.write(session_ended=SessionEnded())])
        assert await store.unindexed() == ["CA1"]
        assert await store.index(summary("CA1", START_S), 3)
        await store.append([said(session, "a straggler that may have been missing")])
        assert await store.unindexed() == ["CA1"]
        assert not await store.index(summary("CA1", START_S), 1)
        assert await store.unindexed() == ["CA1"]

    async def test_a_final_call_takes_nothing_more(self, store: Store) -> None:
        old, new = Writer("CA1", "session/1"), Writer("CA1", "gateway/MZ2")
        await store.append([said(old, "one")])
        assert not (await store.read("CA1")).final
        final = summary("CA1", START_S)
        final.final = True
        assert await store.index(final, 1)
        first = old.facts[0]
        assert await store.append([first, said(old, "late"), said(new, "anew")]) == [
            Outcome.REPEATED,
            Outcome.LATE,
            Outcome.LATE,
        ]
        stored = await store.read("CA1")
        assert (stored.revision, stored.final) == (1, True)
        # Nor does an entry that knows less take it back.
        assert not await store.index(summary("CA1", START_S), 1)
        assert (await store.calls(CallQuery(limit=1)))[0].final
        assert await store.append([said(old, "later")]) == [Outcome.LATE]
        assert not await store.add([said(Writer("CA1", "transcript/closed"), "x")], 1)
        assert await store.open_calls() == []

    async def test_final_or_one_fact_more_but_never_both(self, store: Store) -> None:
        """Each call is made final and appended to in the same moment, in every order of arrival."""
        for n in range(30):
            call_sid = f"CA{n}"
            writer = Writer(call_sid, "session/1")
            await store.append([said(writer, "one")])
            final = summary(call_sid, START_S)
            final.final = True
            asked = [store.index(final, 1), store.append([said(writer, "two")])]
            made, outcomes = await asyncio.gather(*(asked if n % 2 else reversed(asked)))
            if isinstance(made, list):
                made, outcomes = outcomes, made
            assert outcomes == [Outcome.LATE if made else Outcome.STORED]
            assert (await store.read(call_sid)).final == made

    async def test_what_the_service_adds_is_added_to_that_very_revision(self, store: Store) -> None:
        writer = Writer("CA1", "session/1")
        await store.append([said(writer, "one")])
        closed = Fact(call_sid="CA1", writer="transcript/closed", sequence=1)
        closed.call_closed.SetInParent()
        assert not await store.add([closed], 2)
        assert await store.add([closed], 1)
        assert not await store.add([closed], 1)  # as another service would
        stored = await store.read("CA1")
        assert list(stored.facts) == [writer.facts[0], closed]

    async def test_it_knows_whose_writers_are_and_who_lives(self, store: Store) -> None:
        session, gateway = Writer("CA1", "session/1"), Writer("CA1", "gateway/MZ1")
        await store.append([said(session, "one")], "p1")
        await store.append([said(gateway, "two")])
        first = await store.processes()
        assert set(first) == {"p1"}
        await store.append([session.write(session_ended=SessionEnded())], "p1")
        assert await store.open_calls() == [
            OpenCall(
                "CA1",
                3,
                {
                    "session/1": WriterState("p1", closed=True),
                    "gateway/MZ1": WriterState("", closed=False),
                },
            )
        ]
        await asyncio.sleep(0.002)  # the coarsest clock of the databases counts milliseconds
        await store.check({"p1", "p2"})
        second = await store.processes()
        assert second["p1"] > first["p1"]
        assert second.keys() > {"p1", "p2"}
        await store.forget_processes({"p1": first["p1"], "p2": second["p2"]})
        assert "p1" in await store.processes()  # it gave a sign of life since
        assert "p2" not in await store.processes()

    async def test_a_call_holds_only_so_much_and_can_still_end(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("transcript.store_append.MAX_CALL_FACTS", 3)
        session = Writer("CA1", "session/1")
        facts = [said(session, f"{n}") for n in range(5)]
        ending = session.write(session_ended=SessionEnded())
        assert await store.append([*facts, ending, said(Writer("CA2", "session/1"), "x")]) == [
            *[Outcome.STORED] * 3,
            *[Outcome.SURPLUS] * 2,
            Outcome.STORED,
            Outcome.STORED,
        ]
        assert await store.append([facts[0], facts[3]]) == [Outcome.REPEATED, Outcome.SURPLUS]

    async def test_a_call_holds_only_so_many_bytes_and_writers(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("transcript.store_append.MAX_CALL_BYTES", 1_000)
        monkeypatch.setattr("transcript.store_append.MAX_CALL_WRITERS", 3)
        session = Writer("CA1", "session/1")
        assert await store.append([said(session, "a" * 600), said(session, "b" * 600)]) == [
            Outcome.STORED,
            Outcome.SURPLUS,
        ]
        others = [said(Writer("CA1", f"session/{n}"), "x") for n in range(2, 5)]
        assert await store.append(others) == [Outcome.STORED, Outcome.STORED, Outcome.SURPLUS]

    async def test_a_fact_that_the_database_cannot_take_is_refused_alone(
        self, store: Store
    ) -> None:
        # What ingest lets through has no such values; a mistake there must not harm others.
        good = [said(Writer(f"CA{n}", "session/1"), "x") for n in range(5)]
        nul = said(Writer("CA\0", "session/1"), "x")
        answers = await asyncio.gather(
            store.append(good[:2]),
            store.append([good[2], nul, good[3]]),
            store.append(good[4:]),
        )
        stored = Outcome.STORED
        assert answers[0] == [stored] * 2
        assert (answers[1][0], answers[1][2]) == (stored, stored)
        assert answers[2] == [stored]

    async def test_calls_are_listed_newest_first(self, store: Store) -> None:
        await self._index_some(store)
        assert await self._listed(store, CallQuery(limit=10)) == ["CA5", "CA4", "CA3", "CA2", "CA1"]

    async def test_calls_are_filtered(self, store: Store) -> None:
        await self._index_some(store)
        second = 1_000_000
        assert await self._listed(store, CallQuery(limit=10, number="+1")) == ["CA3", "CA1"]
        assert await self._listed(
            store, CallQuery(limit=10, state=CallState.CALL_STATE_COMPLETED)
        ) == ["CA5", "CA4"]
        assert await self._listed(
            store,
            CallQuery(
                limit=10,
                started_after_us=(START_S + 2) * second,
                started_before_us=(START_S + 4) * second,
            ),
        ) == ["CA3", "CA2"]

    async def test_pages_follow_each_other_through_ties(self, store: Store) -> None:
        await self._index_some(store)
        listed: list[CallSummary] = []
        after: Cursor | None = None
        while page := await store.calls(CallQuery(limit=2, after=after)):
            listed += page
            after = Cursor(start_us(page[-1]), page[-1].call_sid)
        assert [call.call_sid for call in listed] == ["CA5", "CA4", "CA3", "CA2", "CA1"]

    async def test_a_check_of_a_working_store_passes(self, store: Store) -> None:
        await store.check()

    async def _index_some(self, store: Store) -> None:
        for call_sid, offset_s, number, state in (
            ("CA1", 1, "+1", 1), ("CA2", 2, "+2", 1), ("CA3", 3, "+1", 3), ("CA4", 4, "+4", 2),
            ("CA5", 4, "+5", 2),
        ):  # fmt: skip
            await store.append([said(Writer(call_sid, "session/1"), "x")])
            assert await store.index(summary(call_sid, START_S + offset_s, number, state), 1)

    async def _listed(self, store: Store, query: CallQuery) -> list[str]:
        listed = await store.calls(query)
        # What stands in for an old entry is listed by the same rules.
        all_calls = await store.calls(CallQuery(limit=100))
        assert listed == [call for call in all_calls if is_listed(call, query)][: query.limit]
        return [call.call_sid for call in listed]
