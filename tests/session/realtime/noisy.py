"""A call with noise in it: what the agent says, what is heard of it, and what is owed then."""

from __future__ import annotations

from session.agent import Agent, parse_agent
from session.realtime import noise
from session.realtime.debts import Kind
from session.realtime.noise import QUIET_S, Noise
from session.realtime.state import Item, Memory, Part, Response

NOW = 100.0
TEXT = (
    "Your order of four cupcakes comes to twelve dollars and fifty cents, ready at half past nine."
)
AUDIO_MS = 6_000
SPOKEN = "name: x\ninstructions: Be brief.\n"
GREETER = "name: x\ninstructions: Be brief.\ngreeting: Say hello.\n"


def agent(text: str = SPOKEN) -> Agent:
    return parse_agent(text, name="inline")


class Call:
    """Kind an agent says in a call, and what is heard of it."""

    def __init__(self, text: str = SPOKEN) -> None:
        self.memory = Memory()
        self.noise = Noise(agent(text), self.memory)
        self.now = NOW

    # --- the agent ----------------------------------------------------------------------------

    def begins(self, response_id: str, text: str = TEXT, ms: int = AUDIO_MS) -> None:
        """A response begins, with all of an item's text and audio; it is not over."""
        self.memory.responses[response_id] = Response(response_id)
        self.noise.begun(response_id)
        if text:
            item = Item(f"A{response_id}", response_id, speech=True)
            item.parts[0] = Part(text=text, received_bytes=8 * ms, sent=ms > 0)
            self.memory.items[item.item_id] = item

    def over(self, response_id: str, *, completed: bool = True) -> None:
        """The server says that it is over."""
        self.memory.responses.pop(response_id, None)
        for item in self.memory.items.values():
            if item.response_id == response_id and not item.done:
                item.done, item.completed = True, completed

    def says(self, response_id: str, text: str = TEXT, ms: int = AUDIO_MS) -> None:
        """A whole response, which is playing."""
        self.begins(response_id, text, ms)
        self.over(response_id)

    def calls(self, response_id: str, *, announced: bool) -> None:
        """A response calls a function."""
        item = Item(f"F{response_id}", response_id, speech=False, announced=announced)
        self.memory.items[item.item_id] = item

    def heard(self, response_id: str, ms: int) -> None:
        """The gateway says where playback of it stopped."""
        item = self.memory.items[f"A{response_id}"]
        part = item.parts[0]
        if part.received_ms <= ms:
            part.settled = True
        else:
            part.position_ms = ms
        item.heard = ms > 0
        item.removed = ms == 0

    # --- the caller ---------------------------------------------------------------------------

    def sound(self, seconds: float = 0.3) -> None:
        """Voice detection hears something."""
        self.noise.cut(now=self.now)
        for response_id in list(self.memory.responses):
            self.over(response_id, completed=False)
        self.now += seconds
        self.noise.speech_stopped(now=self.now)

    def turn(self, item_id: str = "U", text: str | None = "Hello?") -> bool:
        """It is committed and transcribed."""
        return self.noise.committed(item_id) | self.noise.transcribed(item_id, text)

    # --- what follows -------------------------------------------------------------------------

    def quiet(
        self,
        seconds: float = QUIET_S,
        *,
        owed: tuple[Kind, ...] = (),
        busy: bool = False,
        calling: bool = False,
    ) -> noise.Resume | None:
        """Both sides are silent for so long."""
        quiet_from, self.now = self.now, self.now + seconds
        return self.noise.next(
            quiet_from=quiet_from, owed=owed, busy=busy, calling=calling, now=self.now
        )


def said(resume: noise.Resume | None) -> tuple[Kind | None, str]:
    """Kind is owed, and the words that the model is told not to have been heard."""
    if resume is None:
        return None, ""
    _, _, rest = (resume.instructions or "").partition("has not heard: «")
    return resume.kind, rest.partition("»")[0]
