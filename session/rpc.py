"""``asheard.v1.SessionService``: one stream per gateway, many calls in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio

from asheard.v1 import session_service_pb2, session_service_pb2_grpc
from runtime.log import get_log
from session.calls import Calls
from session.link import Link

log = get_log(__name__)


class SessionService(session_service_pb2_grpc.SessionServiceServicer):
    """Serves links, and lets them know of what concerns all of them.

    Args:
        calls: Of this worker.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._links: set[Link] = set()
        calls.on_load = self._report_load

    async def Link(  # type: ignore[override]  # the stubs know generators, not read and write
        self,
        request_iterator: AsyncIterator[session_service_pb2.LinkRequest],
        context: grpc.aio.ServicerContext[
            session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
        ],
    ) -> None:
        """Serve one gateway until its stream ends."""
        link = Link(self._calls, self._stream_stopped)
        self._links.add(link)
        log.info("gateway connected", peer=context.peer())
        try:
            await link.run(request_iterator, context.write)
        finally:
            self._links.discard(link)
            log.info("gateway disconnected", peer=context.peer())

    def _report_load(self) -> None:
        for link in self._links:
            link.report_load()

    def _stream_stopped(self, stopped: session_service_pb2.StreamStopped) -> None:
        """Twilio told some gateway that a stream is over: pass it on to the one that has it."""
        for link in self._links:
            link.tell_stopped(stopped)
