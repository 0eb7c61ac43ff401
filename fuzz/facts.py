"""Odd facts: through the transcript service and its store, through joins, through functions of text.

A good call's facts stand among facts whose every field is filled at random: few ids, so that they are
about the same things, and numbers and texts from the odd to the impossible. What ingest refuses it
must refuse alone; what it takes must be readable, in any order, whatever else is missing.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
import uvloop
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from asheard.v1.fact_pb2 import Fact
from asheard.v1.ingest_service_pb2 import AppendFactsRequest
from asheard.v1.transcript_pb2 import Heard, Role, Transcript, Turn
from asheard.v1.transcript_service_pb2 import (
    CheckHeardRequest,
    DeleteTranscriptRequest,
    ListCallsRequest,
)
from fuzz import mutate
from fuzz.harness import Broken
from tests.transcript.call_facts import short_call
from tests.transcript.running_server import Client, running
from transcript.facts import fault
from transcript.join import join
from words import heard, passage
from words.proportional import proportional_times
from words.tokenize import tokenize

M = TypeVar("M", bound=Message)

_BODIES = [field.name for field in Fact.DESCRIPTOR.oneofs_by_name["body"].fields]
_WRITERS = ("gateway/MZ1", "gateway/MZ2", "session/1", "session/2")
_ITEMS = ("item_1", "item_2", "item_3", "")
_SENTENCES = (
    "Hello there.",
    "One two three four five six seven eight nine ten.",
    "That comes to $9.05, thank you — anything else?",
    "Das macht 12,50 €, bitte. 👋🏽",
    "東京です。お電話ありがとうございます。",
    " lead and trail ",
    "¿Qué más desea usted?",
    "ขอบคุณครับ",
)
_NUMBERS = (
    0, 0, 1, 1, 2, 3, 20, 100, 480, 1_000, 1_700, 2_500, -1, -20, 10**6, 2**31 - 1, -(2**31), 2**53,
    2**63 - 1, -(2**63),
)  # fmt: skip
_EXPECTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
}
"""Statuses that are documented for odd requests."""


class Facts:
    """The target."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-facts-")
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = AsyncExitStack()
        self._client: Client
        self._number = 0

    def __enter__(self) -> Facts:
        store = Path(self._directory.name) / "facts.db"
        self._client = self._runner.run(self._stack.enter_async_context(running(store)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()
        self._directory.cleanup()

    def case(self, random: Random) -> int:
        """One call, or some texts."""
        self._number += 1
        match random.randrange(10):
            case 0:
                return _texts(random)
            case 1 | 2 | 3 | 4:
                return _joins(random)
            case _:
                return self._runner.run(self._served(random))

    # -- through the service -------------------------------------------------------------------

    async def _served(self, random: Random) -> int:
        call_sid = f"CA{self._number}"
        facts = _log(random, call_sid)
        odd = [fact for fact in facts if random.random() < 0.05]
        for fact in odd:  # of no call, of no writer, of another number
            setattr(fact, random.choice(("call_sid", "writer")), mutate.text(random)[:300])
            fact.sequence = _integer(random, 64)
        process = random.choice(("", "p1", "p1", mutate.text(random)[:200]))
        for _ in range(random.choice((1, 1, 2))):
            random.shuffle(facts)
            for start in range(0, len(facts), size := random.choice((1, 7, 100))):
                await self._append(facts[start : start + size], process)
        good = [f for f in facts if f not in odd]
        first = await self._get(call_sid)
        await self._append(good, "")
        again = await self._get(call_sid)
        if (first is None) != (again is None) and again is None:
            raise Broken("a call is gone")
        if first is not None and again is not None:
            _check(again)
            if first.final and again.revision != first.revision:
                raise Broken("a final transcript was changed")
        await self._requests(random, call_sid)
        return len(facts)

    async def _append(self, facts: Sequence[Fact], process: str) -> None:
        request = AppendFactsRequest(facts=facts, process=process)
        try:
            response = await self._client.ingest.AppendFacts(request)
        except grpc.aio.AioRpcError as error:
            _expect(error)
            return
        for rejected in response.rejected:
            fact = facts[rejected.index]
            if not rejected.reason or len(rejected.reason) > 300:
                raise Broken("a refusal without a short reason")
            if fault(fact) is None and "sequence" not in rejected.reason:
                if "database" in rejected.reason and "\0" in str(fact):
                    continue  # PostgreSQL takes no NUL; SQLite does
                raise Broken(f"a good fact was refused: {rejected.reason}")

    async def _get(self, call_sid: str) -> Transcript | None:
        try:
            return await self._client.get(call_sid)
        except grpc.aio.AioRpcError as error:
            _expect(error)
            return None

    async def _requests(self, random: Random, call_sid: str) -> None:
        stub = self._client.transcripts
        call_sid = call_sid if random.random() < 0.9 else mutate.text(random)
        requests: list[Awaitable[Any]] = [
            stub.CheckHeard(CheckHeardRequest(call_sid=call_sid, passage=_sentence(random))),
            stub.ListCalls(_filled(random, ListCallsRequest())),
            stub.ListCalls(ListCallsRequest(page_size=random.choice((0, 1, 5, 1_000)))),
        ]
        if random.random() < 0.7:
            requests.append(stub.DeleteTranscript(DeleteTranscriptRequest(call_sid=call_sid)))
        for request in requests:
            try:
                await request
            except grpc.aio.AioRpcError as error:
                _expect(error)


def _expect(error: grpc.aio.AioRpcError) -> None:
    if error.code() not in _EXPECTED:
        raise Broken(f"{error.code().name}: {(error.details() or '')[:200]}") from error


# -- joins ---------------------------------------------------------------------------------------


def _joins(random: Random) -> int:
    facts = [fact for fact in _log(random, "CA1") if fault(fact) is None]
    if not facts:
        return 0
    wanted = join(facts)
    _check(wanted)
    bytes_wanted = wanted.SerializeToString(deterministic=True)
    for _ in range(3):
        other = facts + random.choices(facts, k=random.randrange(10))
        random.shuffle(other)
        if join(other).SerializeToString(deterministic=True) != bytes_wanted:
            raise Broken("the join depends on order or repeats")
    for _ in range(3):
        _check(join(random.sample(facts, random.randrange(1, len(facts) + 1))))
    return len(facts)


def _check(transcript: Transcript) -> None:
    """What holds for any transcript."""
    if transcript.HasField("end_time") and transcript.HasField("start_time"):
        pass  # clocks of several gateways: nothing is promised
    for turn in transcript.turns:
        if turn.role == Role.ROLE_AGENT:
            _check_agent(turn)
    places = {turn.item_id: place for place, turn in enumerate(transcript.turns)} | {"": -1}
    after = [places.get(event.after_item_id, -2) for event in transcript.events]
    if after != sorted(after) or -2 in after:
        raise Broken("a silence stands after no turn, or out of order")
    if any(event.silence.lasted_ms < 0 for event in transcript.events):
        raise Broken("a silence lasts less than no time")
    transcript.SerializeToString()


def _check_agent(turn: Turn) -> None:
    if not 0 <= turn.heard_audio_ms <= turn.generated_audio_ms:
        raise Broken("more was heard than generated")
    if turn.heard_audio_ms == 0 and turn.heard_text.strip():
        raise Broken("words were heard without sound")
    generated = iter(turn.generated_text)
    if not all(char in generated for char in turn.heard_text if not char.isspace()):
        raise Broken("what was heard is no part of what was generated")
    generated = iter(turn.generated_text)
    counted: list[str] = []
    for word in turn.words:
        if not all(char in generated for char in word.text):
            raise Broken("a word is not in the text, or out of its order")
        if not 0 <= word.played_share <= 1 or word.start_ms > word.end_ms or word.start_ms < 0:
            raise Broken("a word's numbers contradict each other")
        half = word.heard == Heard.HEARD_PARTIAL and word.played_share >= 0.5
        if word.heard == Heard.HEARD_FULL or half:
            counted.append(word.text)
    if "".join("".join(counted).split()) != "".join(turn.heard_text.split()):
        raise Broken("the words that count are not the heard text")


# -- texts ---------------------------------------------------------------------------------------


def _texts(random: Random) -> int:
    text = " ".join(_sentence(random) for _ in range(random.choice((1, 1, 3, 30, 2_000))))
    tokens = tokenize(text)
    for token in tokens:
        if text[token.char_start : token.char_end] != token.text or not token.text.strip():
            raise Broken("a token is not in its place")
    if "".join("".join(token.text for token in tokens).split()) != "".join(text.split()):
        raise Broken("tokens do not cover the text")
    audio_ms = random.choice((0, 1, 20, 1_000, 60_000, 10**7))
    complete = random.random() < 0.5
    times = proportional_times(tokens, audio_ms, complete=complete)
    low, best, high = sorted(random.choices((0, 1, 500, audio_ms // 2, audio_ms, 10**9), k=3))
    answer = heard.heard(
        text,
        times,
        heard.Position(low, best, high),
        played_to_end=complete and best >= audio_ms > 0,
    )
    said = [passage.SaidWord(word.text, word.heard, counts=word.counts) for word in answer.words]
    try:
        found = passage.check_heard(
            _sentence(random), [said] * random.choice((1, 3)), random.choice(("en", "de", "xx", ""))
        )
    except ValueError:
        return 1  # documented: there is no word in it
    if not 0 <= found.share <= 1:
        raise Broken("a share beyond 0 to 1")
    return 1


# -- facts at random -----------------------------------------------------------------------------


def _log(random: Random, call_sid: str) -> list[Fact]:
    """A good call with other facts among its own, numbered as they stand."""
    facts: list[Fact] = []
    if random.random() < 0.6:
        facts = short_call(call_sid, text=_sentence(random))
        if random.random() < 0.5:
            facts = facts[: random.randrange(len(facts) + 1)]
    for _ in range(random.choice((0, 3, 20, 80))):
        fact = Fact(call_sid=call_sid, writer=random.choice(_WRITERS))
        body = random.choice(_BODIES)
        getattr(fact, body).SetInParent()
        _filled(random, getattr(fact, body))
        facts.insert(random.randrange(len(facts) + 1), fact)
    numbers = dict.fromkeys(_WRITERS, 0)
    for fact in facts:
        numbers[fact.writer] = numbers.get(fact.writer, 0) + 1
        fact.sequence = numbers[fact.writer]
    return [_bent(random, fact) if random.random() < 0.02 else fact for fact in facts]


def _bent(random: Random, fact: Fact) -> Fact:
    """The same with other bytes, where they are a fact all the same: fields of a newer writer."""
    try:
        bent = Fact.FromString(mutate.mutated_bytes(random, fact.SerializeToString()))
        bent.call_sid, bent.writer, bent.sequence = fact.call_sid, fact.writer, fact.sequence
    except (DecodeError, ValueError):
        return fact
    return bent


def _filled(random: Random, message: M) -> M:
    """A message with fields at random."""
    for field in message.DESCRIPTOR.fields:
        if random.random() < 0.3:
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.is_repeated:
                for _ in range(random.choice((0, 1, 4, 12))):
                    _filled(random, getattr(message, field.name).add())
            else:
                _filled(random, getattr(message, field.name))
                getattr(message, field.name).SetInParent()
        elif field.is_repeated:
            getattr(message, field.name).extend(
                _scalar(random, field) for _ in range(random.randrange(4))
            )
        else:
            setattr(message, field.name, _scalar(random, field))
    return message


def _scalar(random: Random, field: Any) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _string(random, field.name)
        case FieldDescriptor.TYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.TYPE_ENUM:
            values = [value.number for value in field.enum_type.values]
            return random.choice((*values, *values, 99))
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return random.choice((0.0, 0.5, 1.0, -1.0, 1e30, float("nan"), float("inf")))
        case FieldDescriptor.TYPE_INT64:
            return _integer(random, 64)
        case FieldDescriptor.TYPE_INT32:
            return _integer(random, 32)
        case FieldDescriptor.TYPE_UINT32:
            return abs(_integer(random, 32)) % 2**32
        case other:
            raise AssertionError(f"no values for fields of type {other}")


def _integer(random: Random, bits: int) -> int:
    """As a rule one that an honest writer could have written."""
    number: int = random.choice(_NUMBERS[:12] if random.random() < 0.95 else _NUMBERS)
    limit: int = 2 ** (bits - 1)
    return max(-limit, min(number, limit - 1))


def _string(random: Random, name: str) -> str:
    if random.random() < 0.05:
        return mutate.text(random)
    if name == "item_id" or name == "previous_item_id":
        return random.choice(_ITEMS)
    if name == "session_writer":
        return random.choice(("session/1", "session/2"))
    if name == "text":
        return _sentence(random)
    return random.choice(("x", "en", "call_1", "aligned"))


def _sentence(random: Random) -> str:
    sentence = random.choice(_SENTENCES)
    return mutate.mutated_text(random, sentence) if random.random() < 0.2 else sentence
