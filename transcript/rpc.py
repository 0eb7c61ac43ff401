"""The two gRPC servicers: check the request, hand it in, answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Literal

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from asheard.config import Scope
from asheard.v1.ingest_service_pb2 import (
    AppendFactsRequest,
    AppendFactsResponse,
    RejectedFact,
)
from asheard.v1.ingest_service_pb2_grpc import IngestServiceServicer
from asheard.v1.transcript_pb2 import CallState
from asheard.v1.transcript_service_pb2 import (
    CheckHeardRequest,
    CheckHeardResponse,
    DeleteTranscriptRequest,
    DeleteTranscriptResponse,
    GetTranscriptRequest,
    GetTranscriptResponse,
    ListCallsRequest,
    ListCallsResponse,
    WatchTranscriptRequest,
    WatchTranscriptResponse,
)
from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceServicer
from runtime.errors import (
    AsheardError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from runtime.guard import authorization
from runtime.log import get_log
from transcript.access import Access, PermissionDenied, Unauthenticated, peer_host
from transcript.calls import Calls
from transcript.facts import fault, is_call_sid, is_process
from transcript.ingest import Ingest
from transcript.joined import JoinFailed
from transcript.metrics import TranscriptMetrics
from transcript.once import Once
from transcript.passages import check_heard, check_passage, spoken_language
from transcript.store import CallQuery, Cursor, Outcome, start_us

log = get_log(__name__)

_Bound = Literal["started_after", "started_before"]

Context = grpc.aio.ServicerContext[Any, Any]

MAX_FACTS = 10_000
"""In one request; see AppendFactsRequest."""

USUAL_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999 in seconds since 1970: what a Timestamp may hold."""

_STATUS: dict[type[AsheardError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    ConfigurationError: grpc.StatusCode.UNAVAILABLE,  # a store that cannot be used
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
}


class _Answering:
    """Turns what goes wrong inside into the status of the call."""

    def __init__(self, context: Context, metrics: TranscriptMetrics) -> None:
        self._context = context
        self._metrics = metrics

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Unavailable):
            self._metrics.store_errors.inc()
        if isinstance(error, AsheardError):
            for known, status in _STATUS.items():
                if isinstance(error, known):
                    await self._context.abort(status, str(error))
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            if not isinstance(error, JoinFailed):  # of which the log knows
                log.error("request failed", exc_info=error)
            await self._context.abort(
                grpc.StatusCode.INTERNAL, "a fault of the transcript service's; its log tells more"
            )


class IngestService(IngestServiceServicer):
    """Takes facts from the system's own writers."""

    def __init__(self, ingest: Ingest, metrics: TranscriptMetrics) -> None:
        self._ingest = ingest
        self._metrics = metrics
        self._said = Once()

    async def AppendFacts(
        self, request: AppendFactsRequest, context: Context
    ) -> AppendFactsResponse:
        """Store the facts of a request; durable when this returns."""
        async with _Answering(context, self._metrics):
            if len(request.facts) > MAX_FACTS:
                raise InvalidRequest(f"facts: at most {MAX_FACTS} in one request")
            if not is_process(request.process):
                raise InvalidRequest("process: give at most 128 characters without spaces")
            return await self._append(request)

    async def _append(self, request: AppendFactsRequest) -> AppendFactsResponse:
        response = AppendFactsResponse()
        places: list[int] = []
        for place, fact in enumerate(request.facts):
            if (reason := fault(fact)) is None:
                places.append(place)
            else:
                self._metrics.rejected.labels("malformed").inc()
                response.rejected.append(RejectedFact(index=place, reason=reason))
        facts = [request.facts[place] for place in places]
        if response.rejected and not facts:
            return response
        outcomes = await self._ingest.append(facts, request.process)
        for place, fact, outcome in zip(places, facts, outcomes, strict=True):
            kind = fact.writer.partition("/")[0]
            self._metrics.facts.labels(kind, outcome.value).inc()
            if outcome is Outcome.CONFLICTING:
                self._metrics.rejected.labels("conflicting").inc()
                if self._said.first("conflict", fact.call_sid):
                    log.error(
                        "fact conflicts with a stored one",
                        call=fact.call_sid,
                        writer=fact.writer,
                        sequence=fact.sequence,
                    )
                reason = "sequence: another fact of this writer has this number"
                response.rejected.append(RejectedFact(index=place, reason=reason))
            elif outcome is Outcome.UNSTORABLE:
                self._metrics.rejected.labels("unstorable").inc()
                reason = "fact: the database cannot take it"
                response.rejected.append(RejectedFact(index=place, reason=reason))
        response.rejected.sort(key=lambda rejected: rejected.index)
        return response


class TranscriptService(TranscriptServiceServicer):
    """What a CRM calls."""

    def __init__(self, calls: Calls, access: Access, metrics: TranscriptMetrics) -> None:
        self._calls = calls
        self._access = access
        self._metrics = metrics

    async def GetTranscript(
        self, request: GetTranscriptRequest, context: Context
    ) -> GetTranscriptResponse:
        """Answer with the transcript as it stands."""
        async with _Answering(context, self._metrics):
            self._admit(context)
            _need_call_sid(request.call_sid)
            return GetTranscriptResponse(transcript=await self._calls.get(request.call_sid))

    async def WatchTranscript(
        self, request: WatchTranscriptRequest, context: Context
    ) -> AsyncIterator[WatchTranscriptResponse]:
        """Answer with the present state and every change, until it is final."""
        async with _Answering(context, self._metrics):
            self._admit(context)
            _need_call_sid(request.call_sid)
            async for transcript in self._calls.watch(request.call_sid):
                yield WatchTranscriptResponse(transcript=transcript)

    async def ListCalls(self, request: ListCallsRequest, context: Context) -> ListCallsResponse:
        """Answer with a page of calls."""
        async with _Answering(context, self._metrics):
            self._admit(context)
            query = _query(request)
            # One more than asked for tells whether there is another page.
            calls = await self._calls.list(query)
            page = calls[: query.limit - 1]
            response = ListCallsResponse(calls=page)
            if len(calls) > len(page):
                last = Cursor(start_us(page[-1]), page[-1].call_sid)
                response.next_page_token = _page_token(last, request)
            return response

    async def DeleteTranscript(
        self, request: DeleteTranscriptRequest, context: Context
    ) -> DeleteTranscriptResponse:
        """Forget a call."""
        async with _Answering(context, self._metrics):
            self._admit(context, Scope.DELETE)
            _need_call_sid(request.call_sid)
            await self._calls.delete(request.call_sid)
            log.info("transcript deleted", call=request.call_sid)
            return DeleteTranscriptResponse()

    async def CheckHeard(self, request: CheckHeardRequest, context: Context) -> CheckHeardResponse:
        """Answer whether a passage was heard."""
        async with _Answering(context, self._metrics):
            self._admit(context)
            _need_call_sid(request.call_sid)
            check_passage(request.passage)
            transcript, facts = await self._calls.get_with_facts(request.call_sid)
            # In a thread: a long call is a long text to look through.
            return await asyncio.to_thread(
                check_heard, transcript, request.passage, spoken_language(facts)
            )

    def _admit(self, context: Context, scope: Scope = Scope.READ) -> None:
        bears = authorization(context.invocation_metadata())
        try:
            self._access.admit(bears, peer_host(context.peer()), scope)
        except Unauthenticated as error:
            self._metrics.refusals.note("transcript", context.peer(), str(error))
            raise


def _need_call_sid(call_sid: str) -> None:
    if not call_sid:
        raise InvalidRequest("call_sid: is required")
    if not is_call_sid(call_sid):
        raise NotFound("call_sid: there is no such call")


def _query(request: ListCallsRequest) -> CallQuery:
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        raise InvalidRequest(f"page_size: give 1 to {MAX_PAGE_SIZE}, or 0 for {USUAL_PAGE_SIZE}")
    if request.state not in CallState.values():
        raise InvalidRequest("state: is not a state of a call")
    return CallQuery(
        limit=(request.page_size or USUAL_PAGE_SIZE) + 1,
        started_after_us=_time_us(request, "started_after"),
        started_before_us=_time_us(request, "started_before"),
        number=request.number,
        state=request.state or None,
        after=_cursor(request),
    )


def _time_us(request: ListCallsRequest, name: _Bound) -> int | None:
    if not request.HasField(name):
        return None
    time: Timestamp = getattr(request, name)
    if not 0 <= time.nanos < 1_000_000_000:
        raise InvalidRequest(f"{name}: nanos must be from 0 to 999999999")
    if not _FIRST_S <= time.seconds <= _LAST_S:
        raise InvalidRequest(f"{name}: is not a time of the years 1 to 9999")
    return time.seconds * 1_000_000 + -(-time.nanos // 1_000)  # up: bounds are on whole µs


def _page_token(cursor: Cursor, request: ListCallsRequest) -> str:
    value = json.dumps([cursor.start_us, cursor.call_sid, _filters(request)])
    return base64.urlsafe_b64encode(value.encode()).decode()


def _cursor(request: ListCallsRequest) -> Cursor | None:
    if not request.page_token:
        return None
    try:
        value = json.loads(base64.urlsafe_b64decode(request.page_token.encode()))
    except (ValueError, binascii.Error):
        value = None
    match value:
        case [int(start), str(call_sid), str(filters)] if abs(start) < 1 << 63:
            if filters != _filters(request):
                raise InvalidRequest("page_token: was given for other filters; begin anew")
            if is_call_sid(call_sid):
                return Cursor(start, call_sid)
    raise InvalidRequest("page_token: give next_page_token of the page before, unchanged")


def _filters(request: ListCallsRequest) -> str:
    """What must not change from page to page."""
    filters = ListCallsRequest(number=request.number, state=request.state)
    if request.HasField("started_after"):
        filters.started_after.CopyFrom(request.started_after)
    if request.HasField("started_before"):
        filters.started_before.CopyFrom(request.started_before)
    digest = binascii.crc32(filters.SerializeToString(deterministic=True))
    return f"{digest:08x}"
