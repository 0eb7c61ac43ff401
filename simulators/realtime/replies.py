"""Which of the script's replies comes next. Pure.

After input, the first unused reply whose ``when`` is in it; if none is, the first unused one
without a ``when``; else the fallback. Without input (a greeting, or nothing that could be
recognised) simply the next unused one. So an order of events that the script did not foresee,
such as a lost session, is met by the right reply all the same.
"""

from __future__ import annotations

from simulators.realtime.script import AgentScript, Reply, Speak


class Replies:
    """The script's replies in one session, each said once."""

    def __init__(self, script: AgentScript) -> None:
        self._script = script
        self._used: set[int] = set()
        self._input: str | None = None

    def note_input(self, text: str) -> None:
        """The caller, the client or a tool has said something."""
        self._input = text

    def note_said(self, text: str) -> None:
        """The client has put in what an earlier session said: that is not said again."""
        said = " ".join(text.split()).rstrip(" .-…")
        for index, reply in enumerate(self._script.replies):
            whole = " ".join(part.text for part in reply.parts if isinstance(part, Speak))
            if said and whole.startswith(said):
                self._used.add(index)

    def take_next(self) -> Reply:
        """The reply to what has been noted since the last one."""
        heard, self._input = (self._input or "").casefold(), None
        unused = [(i, r) for i, r in enumerate(self._script.replies) if i not in self._used]
        if heard:
            fitting = [(i, r) for i, r in unused if r.when and r.when.casefold() in heard]
            unused = fitting or [(i, r) for i, r in unused if r.when is None]
        if not unused:
            return self._script.fallback
        index, reply = unused[0]
        self._used.add(index)
        return reply
