"""All links of a gateway: one to each session worker, and the search for a worker for a call.

Workers are named by targets. ``host:port`` is one worker. ``dns:///name:port`` is as many as the
name has addresses, looked up again and again: a worker that appears gets a link, one that
disappears gets no more calls and keeps those that it has.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from gateway.link import Lane, LaneListener, Link
from gateway.metrics import GatewayMetrics
from gateway.placement import by_preference
from runtime.credentials import Credentials
from runtime.log import get_log

log = get_log(__name__)

REFRESH_S = 10.0
"""How often names are looked up: a new worker gets calls within ten seconds."""

REFRESH_WHEN_NONE_S = 1.0
"""The same while a name has no address: at the start, all services start at once."""

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

    @property
    def up(self) -> int:
        """How many links are up."""
        return sum(link.load is not None for link in self._links.values())

    @property
    def has_room(self) -> bool:
        """Whether some worker would take another call, as far as is known."""
        return any(link.load is not None and link.load.has_room for link in self._open_links())

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        """Look for a worker for a call.

        Returns:
            The call's lane, to which audio can be given at once. The listener hears soon, and not
            before this returns, whether the call was accepted or refused.
        """
        lane = Lane(listener, call_sid, stream_sid)
        asyncio.get_running_loop().call_soon(self._offer, lane, "no session worker is up")
        return lane

    async def run(self) -> None:
        """Keep all links up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for target in self._targets:
                if target.startswith(_DNS):
                    tasks.create_task(self._follow(target.removeprefix(_DNS), tasks))
                else:
                    self._add(target, tasks)

    async def close(self, deadline_s: float) -> None:
        """Part from all workers once they have heard that the calls are over; no new ones."""
        links = list(self._links.values())
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
        else:
            lane.listener.session_refused(
                "all session workers are full or draining" if loads else reason
            )

    def _open_links(self) -> list[Link]:
        return [link for link in self._links.values() if not link.retired]

    def _add(self, target: str, tasks: asyncio.TaskGroup, name: str | None = None) -> None:
        link = Link(target, self._metrics, self._offer, self._credentials, name)
        self._links[target] = link
        tasks.create_task(link.run(), name=f"link to {target}")

    async def _follow(self, name_and_port: str, tasks: asyncio.TaskGroup) -> None:
        """Keep one link to each address of a name."""
        name, _, port = name_and_port.rpartition(":")
        mine: set[str] = set()
        while True:
            found = await resolve(name, int(port))
            if found is not None:
                for target in sorted(found - mine):
                    self._add(target, tasks, name)
                for target in mine - found:
                    log.info("session worker gone from its name", target=target, name=name)
                    self._links.pop(target).retire()
                mine = found
            await asyncio.sleep(REFRESH_S if mine else REFRESH_WHEN_NONE_S)


async def resolve(name: str, port: int) -> set[str] | None:
    """All addresses of a name as ``host:port``; None when the question could not be answered.

    A resolver out of order is no reason to part from workers that are well.
    """
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(name.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning("session workers' name not resolved", name=name, reason=str(error))
        return None
    return {f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
            for *_, (host, *_) in answers}  # fmt: skip
