"""Whatever one call raises, twice or in its own clean-up, ends that call alone.

Faults are put into every callback of a call, one call for each, while five other calls go on in the
same processes. What is asserted is seen from outside: the neighbours' frames at the model, their
transcripts, the victim's socket and transcript, and what the admin port says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import uvloop

from asheard.v1 import transcript_pb2
from bench.faults.phone import Phone
from tests.system.injection import CALLBACKS, Injection, Plan, public
from tests.system.one_process import OneProcess, one_process, until

pytestmark = pytest.mark.timeout(
    300
)  # all of it happens in the first test: half a minute as a rule

NEIGHBOURS = 5
AT_ONCE = 24
"""Victims of one batch. Each is judged by itself; when neighbours are hurt, one by one."""

VICTIM_FRAMES = 46
"""The scripted model has done everything by then."""

ENDS_WITHIN_S = 40.0
"""The victim's end, as seen from outside. Most end at once; on a busy machine nothing does."""


@dataclass(slots=True)
class Found:
    """What became of one call with faults in it."""

    place: str
    twice: bool
    call_sid: str
    raised: list[str] = field(default_factory=list)
    socket_open: bool = False
    """The socket was still open when the call had long been over."""
    harm: list[str] = field(default_factory=list)
    """What others noticed."""
    state: str = ""
    """Of its transcript, in the end. Empty: there is none, or it was not looked at."""

    def __str__(self) -> str:
        faults = " then ".join(self.raised) or self.place
        wrong = list(self.harm)
        if self.socket_open:
            wrong.append("its socket stays open")
        if self.unfinished:
            wrong.append(f"its transcript is {self.state}")
        return f"{faults}: {'; '.join(wrong) or 'right'}"

    @property
    def unfinished(self) -> bool:
        """Its transcript says that the call goes on, or may still change."""
        return self.state not in ("", "final")


@dataclass(slots=True)
class Report:
    """Everything that was tried."""

    found: list[Found] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    places: dict[str, list[str]] = field(default_factory=dict)
    neighbours: list[str] = field(default_factory=list)
    """What was not whole about calls that had no faults in them."""
    seconds: float = 0.0


# -- how a victim's call ends ------------------------------------------------------------------


async def _hangs_up(_system: OneProcess, phone: Phone) -> None:
    await phone.stop()


async def _drops(_system: OneProcess, phone: Phone) -> None:
    await asyncio.sleep(0.9)  # no frames: the model's clock stands still, and is told so
    await phone.frames(2)
    phone.drop()


async def _sends_nonsense(_system: OneProcess, phone: Phone) -> None:
    await phone.send("weather")
    await phone.send_text(b"\x00")


async def _calls_again(system: OneProcess, phone: Phone) -> None:
    again = Phone(system.media_url, phone.call_sid, "vagain")
    again.stream_sid = phone.stream_sid[:-1] + "f"
    await again.open()
    await again.frames(3)
    await again.stop()
    await until(again.closed.is_set, "the second stream is closed", ENDS_WITHIN_S)
    await again.close()


async def _is_stopped_by_webhook(system: OneProcess, phone: Phone) -> None:
    sids = {"CallSid": phone.call_sid, "StreamSid": phone.stream_sid}
    await system.post("/twilio/status", StreamEvent="stream-stopped", **sids)


async def _failed_by_webhook(system: OneProcess, phone: Phone) -> None:
    sids = {"CallSid": phone.call_sid, "StreamSid": phone.stream_sid}
    await system.post("/twilio/status", StreamEvent="stream-error", StreamError="31921", **sids)


async def _is_over_by_webhook(system: OneProcess, phone: Phone) -> None:
    await system.post("/twilio/voice?attempt=1", CallSid=phone.call_sid, CallStatus="completed")


async def _loses_its_model(_system: OneProcess, phone: Phone) -> None:
    await phone.frames(20)


async def _is_kept_waiting(_system: OneProcess, phone: Phone) -> None:
    await phone.frames(125)  # two and a half seconds: a silence that is written down
    await phone.stop()


ENDINGS: dict[str, Callable[[OneProcess, Phone], Awaitable[None]]] = {
    "hangs up": _hangs_up,
    "drops": _drops,
    "sends nonsense": _sends_nonsense,
    "calls again": _calls_again,
    "stopped by webhook": _is_stopped_by_webhook,
    "failed by webhook": _failed_by_webhook,
    "over by webhook": _is_over_by_webhook,
    "model lost": _loses_its_model,
    "kept waiting": _is_kept_waiting,
}

TAGS = {"model lost": "vmodel", "kept waiting": "vwaits"}
"""By which the model knows what to play; of other endings ``v``."""


class Trial:
    """One running system with its neighbours, and the victims that are put among them."""

    _numbers = itertools.count(1)

    def __init__(self, system: OneProcess, injection: Injection) -> None:
        self._system = system
        self._injection = injection
        self._neighbours: list[Phone] = []
        self._talking: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Have the neighbours call."""
        for _ in range(NEIGHBOURS):
            number = next(self._numbers)
            phone = Phone(self._system.media_url, f"CA{number:032x}", f"n{number}")
            await phone.open()
            self._system.model.phones[phone.tag] = phone
            self._neighbours.append(phone)
            self._talking.append(asyncio.create_task(phone.frames(1_000_000)))
        await until(lambda: not self._missing(frames=5), "the neighbours are connected")

    async def victim(self, plan: Plan, ending: str) -> Found:
        """One call with faults in it."""
        number = next(self._numbers)
        call_sid = f"CA{number:032x}"
        self._injection.plans[call_sid] = plan
        found = Found(plan.place, plan.twice, call_sid)
        phone = Phone(self._system.media_url, call_sid, f"{TAGS.get(ending, 'v')}{number}")
        try:
            with contextlib.suppress(OSError):
                await phone.open()
                await phone.frames(6)
                await phone.send("dtmf", dtmf={"track": "inbound_track", "digit": "4"})
                await phone.frames(VICTIM_FRAMES - 6)
                if not phone.closed.is_set():
                    with contextlib.suppress(AssertionError):
                        await ENDINGS[ending](self._system, phone)
            with contextlib.suppress(AssertionError):
                await until(phone.closed.is_set, "its end", ENDS_WITHIN_S)
            found.socket_open = not phone.closed.is_set()
        finally:
            await phone.close()
        found.raised = plan.raised
        return found

    async def health(self) -> list[str]:
        """What is wrong with what had no fault in it."""
        wrong = self._system.ended()
        if wrong:
            return wrong
        before = [self._frames(phone) for phone in self._neighbours]
        moved = [False] * NEIGHBOURS

        def all_moved() -> bool:
            for index, phone in enumerate(self._neighbours):
                moved[index] = self._frames(phone) >= before[index] + 5
            return all(moved)

        with contextlib.suppress(AssertionError):
            await until(all_moved, "the neighbours' frames", 5.0)
        still = sum(not one for one in moved)
        if still:
            wrong.append(f"{still} of {NEIGHBOURS} neighbours' frames do not arrive any more")
        alive = await self._system.probe("gateway", "/livez")
        if alive != (503 if still == NEIGHBOURS else 200):
            wrong.append(f"/livez says {alive}")
        return wrong

    async def end(self) -> list[str]:
        """Hang up once all is said; what is not whole about the neighbours' calls."""
        model = self._system.model
        model.paused = True
        sessions = [model.session(phone.tag) for phone in self._neighbours]
        with contextlib.suppress(AssertionError):
            await until(lambda: all(s is not None and s.all_heard for s in sessions), "last words")
        sent = [phone.sent + 5 for phone in self._neighbours]  # and the marks behind them
        with contextlib.suppress(AssertionError):
            await until(
                lambda: all(p.sent >= n for p, n in zip(self._neighbours, sent, strict=True)),
                "marks",
            )
        for task in self._talking:
            task.cancel()
        await asyncio.gather(*self._talking, return_exceptions=True)
        await asyncio.gather(*(phone.stop() for phone in self._neighbours))
        wrong = await asyncio.gather(*(self._judge(phone) for phone in self._neighbours))
        await asyncio.gather(*(phone.close() for phone in self._neighbours))
        return [entry for entries in wrong for entry in entries]

    async def settle(self, founds: Sequence[Found], *, patiently: bool = True) -> None:
        """Look at the victims' transcripts, which may take a moment to be final."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + (ENDS_WITHIN_S if patiently else 2.0)
        open_ones = list(founds)
        while open_ones and loop.time() < deadline_s:
            transcripts = await self._system.transcripts([found.call_sid for found in open_ones])
            for found in open_ones:
                transcript = transcripts.get(found.call_sid)
                if transcript is None:
                    continue
                state = transcript_pb2.CallState.Name(transcript.state).removeprefix("CALL_STATE_")
                found.state = "final" if transcript.final else f"{state}, not final"
            # One that failed before it wrote anything has no transcript; it is waited for as well,
            # but only as long as others are.
            open_ones = [found for found in open_ones if found.state != "final"]
            if not any(found.unfinished for found in open_ones):
                return
            await asyncio.sleep(0.3)

    def _frames(self, phone: Phone) -> int:
        session = self._system.model.session(phone.tag)
        return len(session.frames) if session is not None else 0

    def _missing(self, frames: int) -> bool:
        return any(self._frames(phone) < frames for phone in self._neighbours)

    async def _judge(self, phone: Phone) -> list[str]:
        """What is not whole about one neighbour's call."""
        name = f"neighbour {phone.tag}"
        session = self._system.model.session(phone.tag)
        if session is None or phone.closed.is_set() and not phone.sent:
            return [f"{name}: its call is lost"]
        wrong: list[str] = []
        with contextlib.suppress(AssertionError):
            await until(lambda: session.frames[-1] >= phone.sent - 1, "its last frame", 5.0)
        if session.frames != list(range(phone.sent)):
            lost = phone.sent - len(set(session.frames))
            wrong.append(f"{name}: {lost} of {phone.sent} frames lost, or out of order")
        transcript: transcript_pb2.Transcript | None = None
        deadline_s = asyncio.get_running_loop().time() + ENDS_WITHIN_S
        while asyncio.get_running_loop().time() < deadline_s:
            transcript = (await self._system.transcripts([phone.call_sid])).get(phone.call_sid)
            if transcript is not None and transcript.final:
                break
            await asyncio.sleep(0.2)
        if transcript is None or not transcript.final:
            return [*wrong, f"{name}: its transcript is not final"]
        if transcript.state != transcript_pb2.CALL_STATE_COMPLETED:
            wrong.append(f"{name}: its call did not end by its hanging up")
        told = [(t.role, t.heard_text) for t in transcript.turns]
        agent = [text for role, text in told if role == transcript_pb2.ROLE_AGENT]
        caller = [text for role, text in told if role == transcript_pb2.ROLE_CALLER]
        if caller != session.heard:
            wrong.append(f"{name}: {len(caller)} of {len(session.heard)} turns of the caller")
        if agent != session.said:
            wrong.append(f"{name}: {len(agent)} of {len(session.said)} answers, not all as heard")
        return wrong


class Trials:
    """All that is tried; a system that was hurt is replaced by a new one."""

    def __init__(self) -> None:
        self.report = Report()
        self._injection = Injection()

    async def run(self) -> Report:
        """Do it."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._injection.put_in()
        try:
            self.report.places = self._injection.places
            wanted = await self._explore()
            shared = set(public(wanted))
            plans = [
                (place, ending, twice)
                for place, ending in wanted.items()
                # A second fault alone could hide what the first does; for what others call, both.
                for twice in ((False, True) if place in shared else (True,))
            ]
            batches = [plans[i : i + AT_ONCE] for i in range(0, len(plans), AT_ONCE)]
            while batches:
                batches = await self._among_neighbours(batches)
        finally:
            self._injection.take_out()
        self.report.seconds = loop.time() - began_s
        return self.report

    async def _explore(self) -> dict[str, str]:
        """Without a fault: which callbacks are reached, and by which way to end a call first."""
        wanted: dict[str, str] = {}
        async with AsyncExitStack() as stack:
            system = await stack.enter_async_context(one_process())
            trial = Trial(system, self._injection)
            await trial.begin()
            plans = {ending: Plan("", twice=False) for ending in ENDINGS}
            founds = await asyncio.gather(*(trial.victim(p, e) for e, p in plans.items()))
            await trial.settle(founds)
            wrong = await trial.health() + await trial.end()
            wrong += [f"{e}: {f}" for e, f in zip(plans, founds, strict=True)
                      if f.socket_open or f.unfinished]  # fmt: skip
            if wrong:
                raise AssertionError(f"without any fault: {wrong}")
        for ending, plan in plans.items():
            for place in sorted(plan.reached):
                wanted.setdefault(place, ending)
        self.report.reached = set(wanted)
        return wanted

    async def _among_neighbours(
        self, batches: list[list[tuple[str, str, bool]]]
    ) -> list[list[tuple[str, str, bool]]]:
        """Try batches on one system until one of them does harm; what is left to be tried."""
        founds: list[Found] = []
        left: list[list[tuple[str, str, bool]]] = list(batches)
        async with one_process() as system:
            trial = Trial(system, self._injection)
            await trial.begin()
            while left:
                batch = left.pop(0)
                tried = await asyncio.gather(
                    *(trial.victim(Plan(place, twice), ending) for place, ending, twice in batch)
                )
                harm = await trial.health()
                if harm and len(batch) > 1:
                    # Whose it was is not known: each half once more, on a system of its own.
                    middle = len(batch) // 2
                    left = [batch[:middle], batch[middle:], *left]
                    break
                if harm:
                    tried[0].harm = harm
                    self.report.found += tried
                    break
                founds += tried
            else:
                harm = []
            if not harm:
                self.report.neighbours += await trial.end()
            await trial.settle(founds, patiently=not harm)
            self.report.found += founds
        return left


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    """All trials, on the loop that production has."""
    done: list[Report | BaseException] = []

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                done.append(runner.run(Trials().run()))
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=work, name="trials")
    thread.start()
    thread.join()
    if isinstance(done[0], BaseException):
        raise done[0]
    yield done[0]


@pytest.mark.parametrize("component", [entry.path for entry in CALLBACKS])
def test_a_fault_in_one_call_is_no_other_calls(report: Report, component: str) -> None:
    hurt = [str(f) for f in report.found if f.harm and f.place in report.places[component]]
    assert hurt == []


@pytest.mark.parametrize("component", [entry.path for entry in CALLBACKS])
def test_a_call_with_a_fault_ends(report: Report, component: str) -> None:
    endless = [
        str(found)
        for found in report.found
        if found.place in report.places[component] and (found.socket_open or found.unfinished)
    ]
    assert endless == []


def test_the_neighbours_calls_are_whole(report: Report) -> None:
    assert report.neighbours == []


def test_every_callback_had_its_fault(report: Report) -> None:
    """Each that others call: a new one needs a way to be reached, in ENDINGS or in the model's script."""
    tried = {found.place for found in report.found if found.raised}
    for component, places in report.places.items():
        assert set(public(places)) - tried - UNREACHED == set(), component


UNREACHED = {
    # What takes a full worker, a quarter of a minute of silence, the end of the process, or a network
    # that takes nothing.
    "gateway.call.Call.session_refused",
    "gateway.delivery.Delivery.mark",
    "gateway.media_connection.MediaConnection.abort",
    "session.realtime.picows_connection.PicowsConnection.pause_writing",
    # What is called only behind a fault: the second one of each trial meets it.
    "gateway.call.Call.cut",
    "gateway.call.Call.session_lost",
    "gateway.record.CallRecord.session_lost",
    "gateway.media_connection.MediaConnection.cut",
    "gateway.media_connection.MediaConnection.fail",
    "session.call.Call.crash",
    "session.call.Call.give_up",
    # What takes more items than a short call has.
    "session.realtime.parts.Parts.forget",
    # What takes the loss of the link, which is the neighbours' as well.
    "session.words.CallWords.position_unknown",
}
