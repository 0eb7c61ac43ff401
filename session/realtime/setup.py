"""The session's configuration: what the model is told, and whether it agreed. Pure.

Audio may be appended once the model has accepted ``session.update``. A refusal ends the session,
and so does audio in another format than was asked for; any other difference is counted, once.
"""

from __future__ import annotations

from asheard.v1 import fact_pb2
from session.agent import Agent, session_update
from session.realtime import agreed, events
from session.realtime.faults import without_secrets
from session.realtime.outputs import Fatal, Note, Outputs


class Setup:
    """Configures the session, and writes its first fact."""

    def __init__(self, agent: Agent, model: str, outputs: Outputs) -> None:
        self._model = model
        self._language = agent.language
        self._told = session_update(agent)
        self._outputs = outputs
        self._update_id = ""
        self._recorded = False
        self._differing: set[str] = set()
        self.configured = False
        """The model has accepted."""

    def open(self) -> None:
        """The socket is open."""
        self._update_id = self._outputs.event_id()
        self._outputs.send(events.UpdateSession(event_id=self._update_id, session=self._told))

    def record(self, session_id: str = "") -> None:
        """Write the first fact, once.

        Args:
            session_id: The server's name of the session; empty when it has not said so.
        """
        if not self._recorded:
            self._recorded = True
            self._outputs.fact(
                "session_started",
                fact_pb2.SessionStarted(
                    session_id=session_id, model=self._model, language=self._language
                ),
            )

    def updated(self, said: events.Session) -> bool:
        """The server says what is in force.

        Returns:
            Whether the session is configured by that; True once.
        """
        self.record(said.id)
        differing = agreed.differences(self._told, said)
        for setting in differing:
            if setting not in self._differing:
                self._differing.add(setting)
                self._outputs.note(Note.SETTING_DIFFERS, setting)
        if not agreed.FORMATS.isdisjoint(differing):
            self._outputs.add(
                Fatal(f"the model has another audio format than audio/pcmu: {differing[0]}")
            )
            return False
        first = not self.configured
        self.configured = True
        return first

    def refused(self, detail: events.ErrorDetail) -> bool:
        """The model reported an error. Whether it refuses the configuration: that is the end."""
        if self.configured or detail.event_id not in (self._update_id, None):
            return False
        self._outputs.add(
            Fatal(
                "the model refused session.update: "
                f"{without_secrets(str(detail.param or detail.code or 'error'))}: "
                f"{without_secrets(detail.message or '')}"
            )
        )
        return True
