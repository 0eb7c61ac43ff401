"""The end of a call that failed in its own end, from outside of it.

A call writes its last fact, and tells its session worker that it is over. One that failed in its
own end may have done neither: its transcript would never be final, since nobody takes the writer of
a process that lives for lost, and its session would go on. So whoever finds the socket closed looks
once more.
"""

from __future__ import annotations

import time

from asheard.v1 import fact_pb2
from gateway.barrier import guarded
from gateway.call import FactWriters, Workers
from gateway.lane import Lane, LaneListener
from runtime.facts import FactWriter
from runtime.log import get_log

log = get_log(__name__)

_OUTCOME = fact_pb2.CALL_OUTCOME_DROPPED


class LastLine:
    """Gives one socket's call what it needs of the process, and remembers what is to be given back.

    Args:
        links: To the session workers.
        outbox: For facts.
    """

    def __init__(self, links: Workers, outbox: FactWriters) -> None:
        self._links = links
        self._outbox = outbox
        self._writers: list[FactWriter] = []
        self._lanes: list[Lane] = []

    def writer(self, call_sid: str, writer: str) -> FactWriter:
        """A writer for one stream of a call."""
        given = self._outbox.writer(call_sid, writer)
        self._writers.append(given)
        return given

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        """A lane for the call; the listener hears later whether it leads anywhere."""
        lane = self._links.place(listener, call_sid, stream_sid)
        self._lanes.append(lane)
        return lane

    def announce_stopped(self, call_sid: str, stream_sid: str) -> None:
        """Tell all that Twilio says that a stream of another gateway is over."""
        self._links.announce_stopped(call_sid, stream_sid)

    def end(self) -> None:
        """The socket is closed: end what was begun and has no end. Nothing is raised."""
        for lane in self._lanes:
            guarded(log, lane.close, _OUTCOME)
        for writer in self._writers:
            # A worker that was asked may have written of the call, also when we came to nothing.
            if not writer.closed and (writer.begun or self._lanes):
                guarded(log, _close, writer)
        self._lanes.clear()
        self._writers.clear()


def _close(writer: FactWriter) -> None:
    now_ns = time.time_ns()
    if not writer.begun:
        stream_sid = writer.writer.partition("/")[2]
        started = fact_pb2.CallStarted(stream_sid=stream_sid)
        started.start_time.FromNanoseconds(now_ns)
        writer.write(call_started=started)
    ended = fact_pb2.CallEnded(outcome=_OUTCOME)
    ended.end_time.FromNanoseconds(now_ns)
    writer.write(call_ended=ended)
