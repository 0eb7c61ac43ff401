"""The typed client against a running service: what it returns and what it raises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

import asheard
from asheard import errors
from asheard.timeline import silence_in_words, timeline
from asheard.v1.transcript_pb2 import CallState, Transcript, Turn
from asheard.v1.transcript_service_pb2 import PassageResult
from tests.transcript.call_facts import START_S, short_call, troubled_call
from tests.transcript.running_server import Client, running


def connect(service: Client, token: str | None = None) -> asheard.Client:
    return asheard.connect(f"127.0.0.1:{service.server.grpc.port}", token=token)


async def test_a_transcript_and_whether_a_passage_was_heard(tmp_path: Path) -> None:
    async with running(tmp_path / "facts.db") as service:
        await service.append(short_call("CA1", text="That will be $9.05."))
        with connect(service) as client:
            transcript = await asyncio.to_thread(client.get, "CA1")
            answer = await asyncio.to_thread(
                client.check_heard, "CA1", "nine dollars and five cents"
            )
    assert (transcript.call_sid, transcript.final) == ("CA1", True)
    assert transcript.turns[0].heard_text == "That will be $9.05."
    assert answer.result == PassageResult.PASSAGE_RESULT_HEARD


async def test_a_timeline_has_turns_and_the_silences_between_them(tmp_path: Path) -> None:
    async with running(tmp_path / "facts.db") as service:
        await service.append(troubled_call())
        with connect(service) as client:
            transcript = await asyncio.to_thread(client.get, "CA1")
    assert [
        entry.item_id if isinstance(entry, Turn) else silence_in_words(entry.silence)
        for entry in timeline(transcript)
    ] == [
        "question",
        "5.0 s of silence: the model refused or failed",
        "hold",
        "answer",
        "unclear",
    ]


async def test_a_watch_gives_each_state_and_ends_with_the_final_one(tmp_path: Path) -> None:
    async with running(tmp_path / "facts.db") as service:
        facts = short_call("CA1")
        await service.append(facts[:3])
        with connect(service) as client:
            states: list[Transcript] = []

            def watch() -> None:
                for transcript in client.watch("CA1"):
                    states.append(transcript)

            watching = asyncio.create_task(asyncio.to_thread(watch))
            async with asyncio.timeout(20):
                while not states:
                    await asyncio.sleep(0.01)
                await service.append(facts[3:])
                await watching
    assert not states[0].final and states[-1].final
    assert [state.revision for state in states] == sorted({state.revision for state in states})


async def test_a_watch_that_is_left_holds_nothing_up(tmp_path: Path) -> None:
    async with running(tmp_path / "facts.db") as service:
        await service.append(short_call("CA1")[:3])
        with connect(service) as client:

            def first() -> Transcript:
                return next(client.watch("CA1"))

            assert (await asyncio.to_thread(first)).call_sid == "CA1"
            assert (await asyncio.to_thread(client.get, "CA1")).call_sid == "CA1"


async def test_calls_newest_first_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asheard.client.MAX_PAGE", 2)
    async with running(tmp_path / "facts.db") as service:
        for n in range(5):
            await service.append(short_call(f"CA{n}", start_s=START_S + n, ended=n > 0))
        with connect(service) as client:
            three = await asyncio.to_thread(lambda: client.list(limit=3))
            rest = await asyncio.to_thread(lambda: client.list(page_token=three.next_page_token))
            active = await asyncio.to_thread(lambda: client.list(state=CallState.CALL_STATE_ACTIVE))
            middle = await asyncio.to_thread(
                lambda: client.list(
                    started_after=datetime.fromtimestamp(START_S + 1, UTC),
                    started_before=datetime.fromtimestamp(START_S + 3, UTC),
                )
            )
    assert [call.call_sid for call in three.calls] == ["CA4", "CA3", "CA2"]
    assert [call.call_sid for call in rest.calls] == ["CA1", "CA0"]
    assert rest.next_page_token == ""
    assert [call.call_sid for call in active.calls] == ["CA0"]
    assert [call.call_sid for call in middle.calls] == ["CA2", "CA1"]


async def test_who_may_delete_deletes(tmp_path: Path) -> None:
    tokens = ["reader", "eraser:read+delete"]
    async with running(tmp_path / "facts.db", tokens=tokens) as service:
        await service.append(short_call("CA1"))
        with connect(service) as nobody, pytest.raises(errors.Unauthenticated):
            await asyncio.to_thread(nobody.get, "CA1")
        with connect(service, "reader") as reader, pytest.raises(errors.PermissionDenied):
            await asyncio.to_thread(reader.delete, "CA1")
        with connect(service, "eraser") as eraser:
            await asyncio.to_thread(eraser.delete, "CA1")
            with pytest.raises(errors.NotFound):
                await asyncio.to_thread(eraser.get, "CA1")
            with pytest.raises(errors.InvalidRequest):
                await asyncio.to_thread(eraser.get, "")
    with connect(service) as away, pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:"):
        await asyncio.to_thread(away.get, "CA1")


def test_what_is_no_target_and_no_file_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="HOST:PORT"):
        asheard.connect("nonsense")
    with pytest.raises(errors.ConfigurationError, match="No such file"):
        asheard.connect("localhost:1", tls_ca=tmp_path / "none.pem")


class Refusal(grpc.RpcError):
    """An error of gRPC's, which is the call that failed."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return ""


class Refusing:
    """A channel on which every request ends with one status."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self._status = status

    def unary_unary(self, *_arguments: object, **_options: object) -> Callable[..., None]:
        def call(*_arguments: object, **_options: object) -> None:
            raise Refusal(self._status)

        return call

    unary_stream = unary_unary


@pytest.mark.parametrize("status", sorted(set(grpc.StatusCode) - {grpc.StatusCode.OK}, key=str))
def test_every_status_is_one_of_our_errors(status: grpc.StatusCode) -> None:
    client = asheard.Client(Refusing(status), "somewhere:1")  # type: ignore[arg-type]
    with pytest.raises(errors.AsheardError, match=status.name):
        client.get("CA1")
    with pytest.raises(errors.AsheardError, match=status.name):
        next(client.watch("CA1"))
