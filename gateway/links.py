"""All links of a gateway: one to each session worker, and the search for a worker for a call.

Workers are named by targets. ``host:port`` is one worker. ``dns:///name:port`` is as many as the
name has addresses, looked up again and again: a worker that appears gets a link, one that
disappears gets no more calls and keeps those that it has.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from asheard.v1 import session_service_pb2
from gateway.instant import now
from gateway.lane import Lane, LaneListener
from gateway.link import RECONNECT_S, Link, in_call
from gateway.metrics import GatewayMetrics
from gateway.placement import by_preference
from runtime.credentials import Credentials
from runtime.log import get_log

log = get_log(__name__)

REFRESH_S = 10.0
"""How often names are looked up: a new worker gets calls within ten seconds."""

REFRESH_WHEN_NONE_S = 1.0
"""The same while a name has no address: at the start, all services start at once."""

MIN_REFRESH_S = 0.25
"""The same while a call waits for a worker, however many wait."""

MAX_SID_BYTES = 256
"""Of what a webhook names and every worker is told; Twilio's have 34."""

_DNS = "dns:///"


class Links:
    """The links to all session workers.

    Args:
        targets: ``host:port`` each, or ``dns:///name:port``.
        metrics: Where to count.
        credentials: What the gateway proves itself with; None: nothing.
    """

    def __init__(
        self,
        targets: Iterable[str],
        metrics: GatewayMetrics,
        credentials: Credentials | None = None,
    ) -> None:
        self._targets = tuple(targets)
        self._metrics = metrics
        self._credentials = credentials or Credentials()
        self._links: dict[str, Link] = {}
        self._leaving: set[Link] = set()
        """Links to workers that are gone from their name; they keep the calls that they have."""
        self._waiting: dict[Lane, asyncio.TimerHandle] = {}
        """Calls for which no worker was found yet, each with the timer that gives up."""
        self._look_up = asyncio.Event()
        """A call waits for a worker: names are looked up at once."""

    @property
    def up(self) -> int:
        """How many links are up."""
        return sum(link.load is not None for link in self._links.values())

    @property
    def has_room(self) -> bool:
        """Whether some worker would take another call, as far as is known.

        One that was lost within the last :data:`gateway.link.RECONNECT_S` seconds counts as having
        room: it is back sooner than a caller who was turned away.
        """
        return any(
            link.may_come_back if link.load is None else link.load.has_room
            for link in self._open_links()
        )

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        """Look for a worker for a call; when none takes it, for as long as a link may be away.

        Returns:
            The call's lane, to which audio can be given at once. The listener hears soon, and not
            before this returns, whether the call was accepted or refused.
        """
        loop = asyncio.get_running_loop()
        lane = Lane(listener, call_sid, stream_sid, patience_until_s=loop.time() + RECONNECT_S)
        loop.call_soon(self._offer_in_call, lane, "no session worker is up")
        return lane

    def announce_stopped(self, call_sid: str, stream_sid: str) -> None:
        """Tell every worker that a media stream is over, since Twilio said so to this gateway; the
        one that has the call tells the gateway that has the stream.

        Args:
            call_sid: The call.
            stream_sid: The media stream. Empty: whichever the call has.
        """
        if not call_sid or max(len(call_sid), len(stream_sid)) > MAX_SID_BYTES:
            return
        stopped = session_service_pb2.StreamStopped(call_sid=call_sid, stream_sid=stream_sid)
        for link in (*self._links.values(), *self._leaving):
            link.announce(stopped)

    async def run(self) -> None:
        """Keep all links up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for target in self._targets:
                if target.startswith(_DNS):
                    tasks.create_task(self._follow(target.removeprefix(_DNS), tasks))
                else:
                    self._add(target, tasks)

    async def close(self, deadline_s: float) -> None:
        """Close all links for good, once the workers have heard that the calls are over."""
        links = [*self._links.values(), *self._leaving]
        for link in links:
            link.retire()
        last_words = [link.wait_finished() for link in links if link.load is not None]
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.gather(*last_words)
        except TimeoutError:
            log.warning("a session worker did not take the last messages in time")

    def _offer(self, lane: Lane, reason: str) -> None:
        """Ask the best worker that was not asked yet; ``reason`` is why the last one refused."""
        if lane.outcome is not None:
            return
        loads = {link: link.load for link in self._open_links() if link.load is not None}
        preferred = by_preference(loads, tried=lane.tried)
        if preferred:
            preferred[0].open(lane)
        elif asyncio.get_running_loop().time() < lane.patience_until_s:
            self._wait(lane, reason)
        else:
            lane.listener.session_refused(
                "all session workers are full or draining" if loads else reason, now()
            )

    def _offer_in_call(self, lane: Lane, reason: str) -> None:
        in_call(lane, self._metrics, self._offer, lane, reason)

    def _wait(self, lane: Lane, reason: str) -> None:
        """Wait until a link comes up, or has room, or the call has waited long enough."""
        self._waiting[lane] = asyncio.get_running_loop().call_at(
            lane.patience_until_s, self._give_up, lane, reason
        )
        self._look_up.set()
        for link in self._open_links():
            link.hurry()

    def _give_up(self, lane: Lane, reason: str) -> None:
        self._waiting.pop(lane, None)
        self._offer_in_call(lane, reason)

    def _found_room(self, link: Link) -> None:
        """A worker has room: calls that wait are offered to it, also those that it refused before."""
        for lane in list(self._waiting):
            if link.load is None or not link.load.has_room:
                return
            self._waiting.pop(lane).cancel()
            lane.tried.discard(link)
            self._offer_in_call(lane, "no session worker has room")

    def _open_links(self) -> list[Link]:
        return [link for link in self._links.values() if not link.retired]

    def _add(self, target: str, tasks: asyncio.TaskGroup, name: str | None = None) -> None:
        link = Link(target, self._metrics, self._offer, self._credentials, name, self._found_room)
        self._links[target] = link
        tasks.create_task(self._keep(link), name=f"link to {target}")

    async def _keep(self, link: Link) -> None:
        while True:
            try:
                await link.run()
            except Exception:
                self._metrics.link_faults.labels("link").inc()
                log.exception("fault in keeping a link, which begins anew", target=link.target)
                await asyncio.sleep(REFRESH_WHEN_NONE_S)
            else:
                self._leaving.discard(link)
                return

    async def _follow(self, name_and_port: str, tasks: asyncio.TaskGroup) -> None:
        """Keep one link to each address of a name."""
        name, _, port = name_and_port.rpartition(":")
        mine: set[str] = set()
        while True:
            try:
                found = await resolve(name, int(port))
                if found is not None:
                    for target in sorted(found - mine):
                        self._add(target, tasks, name)
                    for target in mine - found:
                        log.info("session worker gone from its name", target=target, name=name)
                        self._leave(self._links.pop(target))
                    mine = found
            except Exception:
                self._metrics.link_faults.labels("link").inc()
                log.exception("fault in looking up session workers", name=name)
            await self._pause(REFRESH_S if mine else REFRESH_WHEN_NONE_S)

    async def _pause(self, pause_s: float) -> None:
        """Wait before a name is looked up again: less when a call waits, but always a little."""
        await asyncio.sleep(min(pause_s, MIN_REFRESH_S))
        try:
            async with asyncio.timeout(pause_s - MIN_REFRESH_S):
                await self._look_up.wait()
        except TimeoutError:
            return
        self._look_up.clear()

    def _leave(self, link: Link) -> None:
        """Give it no new calls."""
        link.retire()
        self._leaving.add(link)


async def resolve(name: str, port: int) -> set[str] | None:
    """All addresses of a name as ``host:port``; None when the question could not be answered.

    A resolver that is down is no reason to leave workers that are well.
    """
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(name.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning("session workers' name not resolved", name=name, reason=str(error))
        return None
    return {f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
            for *_, (host, *_) in answers}  # fmt: skip
