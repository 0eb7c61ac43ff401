"""Has the code of one call raise, wherever a test wants it, among other calls of the same process.

Every method of the classes in :data:`CALLBACKS` is wrapped. What a call owns is found out while it
runs: an object belongs to the call whose CallSid it is made with, or whose code makes it, or whose
messages it gets first. So a new method is covered as soon as it is written.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


class Fault(Exception):
    """A bug of ours that was put in."""


@dataclass(frozen=True, slots=True)
class Owned:
    """A class whose instances belong to one call each."""

    path: str
    """``module.Class``."""
    private: bool = False
    """Whether what begins with an underscore is a place for faults as well."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Something of the process as a whole that is called for one call."""

    path: str
    """``module.Class.method`` or ``module.function``."""


CALLBACKS: tuple[Owned | Shared, ...] = (
    Owned("gateway.media_connection.MediaConnection", private=True),
    Owned("gateway.call.Call", private=True),
    Owned("gateway.record.CallRecord", private=True),
    Owned("gateway.delivery.Delivery", private=True),
    Owned("gateway.presence.Presence"),
    Owned("gateway.pace.Pace"),
    Owned("gateway.playout.playhead.Playhead"),
    Shared("gateway.lane.Lane.send_audio"),
    Shared("gateway.lane.Lane.send"),
    Shared("gateway.lane.Lane.close"),
    Owned("session.call.Call", private=True),
    Owned("session.caller_input.CallerInput", private=True),
    Owned("session.latency.TurnLatency"),
    Owned("session.outbox.Outlet"),
    Owned("session.output_handler.OutputHandler", private=True),
    Owned("session.realtime.conversation.Conversation", private=True),
    Owned("session.realtime.items.Items"),
    Owned("session.realtime.parts.Parts"),
    Owned("session.realtime.interruptions.Interruptions"),
    Owned("session.realtime.functions.Functions"),
    Owned("session.realtime.floor.Floor"),
    Owned("session.realtime.input_clock.InputClock"),
    Owned("session.realtime.picows_connection.PicowsConnection"),
    Owned("session.words.CallWords", private=True),
    Shared("gateway.links.Links._offer"),
    Shared("gateway.link.Link._control_for"),
    Shared("session.calls.Calls.start"),
    Shared("transcript.joined.join"),
)
"""Where one call's code runs. A name that is not there any more is an error: say what took over."""


@dataclass(slots=True)
class Plan:
    """What is to be raised in one call."""

    place: str
    """The first fault, at the first call of this."""
    twice: bool
    """A second one follows, in whatever of the same service the call runs next: its clean-up."""
    raised: list[str] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)

    def strike(self, place: str) -> None:
        """Raise, if now is the time."""
        self.reached.add(place)
        if not self.raised:
            due = place == self.place
        else:
            same_service = place.partition(".")[0] == self.place.partition(".")[0]
            due = self.twice and len(self.raised) == 1 and same_service
        if due:
            self.raised.append(place)
            raise Fault(f"put in at {place}")


class Injection:
    """Wrapped callbacks, and the plans of calls by CallSid."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.places: dict[str, list[str]] = {}
        """Of each entry of :data:`CALLBACKS`, where a fault can be put in."""
        self._owners: dict[int, tuple[object, str]] = {}
        """Of objects by identity; holding them keeps identities apart."""
        self._current: ContextVar[str] = ContextVar("owner", default="")
        self._undo: list[tuple[Any, str, Any]] = []

    def put_in(self) -> None:
        """Wrap everything."""
        for entry in CALLBACKS:
            owner, name = _resolve(entry.path)
            if isinstance(entry, Shared):
                self.places[entry.path] = [entry.path]
                self._wrap(owner, name, entry.path, shared=True)
                continue
            kind = getattr(owner, name)
            self.places[entry.path] = []
            for attribute, value in list(vars(kind).items()):
                if not _is_callback(attribute, value, private=entry.private):
                    continue
                place = f"{entry.path}.{attribute}"
                self.places[entry.path].append(place)
                self._wrap(kind, attribute, place, shared=False)

    def take_out(self) -> None:
        """Undo that."""
        for owner, name, value in reversed(self._undo):
            setattr(owner, name, value)
        self._undo.clear()

    def _wrap(self, owner: Any, name: str, place: str, *, shared: bool) -> None:
        value = vars(owner)[name]
        self._undo.append((owner, name, value))
        if isinstance(value, property):
            wrapped: Any = property(self._wrapped(value.fget, place, shared=shared))
        else:
            wrapped = self._wrapped(value, place, shared=shared)
        setattr(owner, name, wrapped)

    def _wrapped(self, function: Any, place: str, *, shared: bool) -> Any:
        opens = place.endswith(".__init__")

        @contextmanager
        def on_behalf(args: tuple[Any, ...]) -> Iterator[None]:
            call_sid = self._whose(args, shared=shared, opens=opens)
            if not call_sid:
                yield
                return
            token = self._current.set(call_sid)
            try:
                if (plan := self.plans.get(call_sid)) is not None:
                    plan.strike(place)
                yield
            finally:
                self._current.reset(token)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with on_behalf(args):
                    return await function(*args, **kwargs)

            return call_async

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with on_behalf(args):
                return function(*args, **kwargs)

        return call

    def _whose(self, args: tuple[Any, ...], *, shared: bool, opens: bool) -> str:
        """The CallSid of the call that this is for; empty when it is none of ours."""
        if shared:
            return next(filter(None, map(self._named, args)), "")
        known = self._owners.get(id(args[0]))
        if known is not None:
            return known[1]
        found = next(filter(None, map(self._named, args[1:])), "")
        if not found and opens:
            found = self._current.get()
        if found:
            self._owners[id(args[0])] = (args[0], found)
        return found

    def _named(self, value: Any) -> str:
        """The CallSid that a value is, has, or speaks of."""
        if isinstance(value, str):
            return value if value in self.plans else ""
        if isinstance(value, bytes | bytearray):
            return next((sid for sid in self.plans if sid.encode() in value), "")
        if (known := self._owners.get(id(value))) is not None:
            return known[1]
        if isinstance(value, list) and value:
            value = value[0]
        for holder in (value, getattr(value, "start", None)):
            call_sid = getattr(holder, "call_sid", "")
            if isinstance(call_sid, str) and call_sid in self.plans:
                return call_sid
        return ""


def public(places: Iterable[str]) -> list[str]:
    """Those without an underscore: what others call."""
    return [place for place in places if not place.rpartition(".")[2].startswith("_")]


def _resolve(path: str) -> tuple[Any, str]:
    """The holder of a name, and the name in it."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            holder: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:-1]:
            holder = getattr(holder, part)
        getattr(holder, parts[-1])
        return holder, parts[-1]
    raise AttributeError(f"there is no {path}")


def _is_callback(name: str, value: Any, *, private: bool) -> bool:
    if isinstance(value, property):
        return private or not name.startswith("_")
    if not inspect.isfunction(value) or inspect.isgeneratorfunction(value):
        return False
    if name.startswith("__"):
        return name == "__init__"
    return private or not name.startswith("_")
