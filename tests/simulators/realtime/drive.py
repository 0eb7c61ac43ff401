"""Drives an engine by hand, in virtual time."""

from __future__ import annotations

import base64
import json
from typing import Any

from simulators.realtime.engine import Engine
from simulators.realtime.script import AgentScript, bakery
from simulators.speech import Speech, spoken
from simulators.speech.g711 import SILENCE

PCMU = {"type": "audio/pcmu"}
GREETING = bakery().replies[0]
ORDER = spoken("I want bagels and a soda.")
COFFEE = spoken("Sorry for interrupting, do you also have coffee?")
LINE = "Yes, I can help you place your order. What would you like?"
CREATE = {"type": "response.create"}


def pcmu_session(**more: Any) -> dict[str, Any]:
    """A ``session.update`` as a phone bridge sends it."""
    return {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "audio": {
                "input": {
                    "format": PCMU,
                    "transcription": {"model": "gpt-4o-transcribe"},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "silence_duration_ms": 500,
                        "create_response": True,
                        "interrupt_response": True,
                    },
                },
                "output": {"format": PCMU},
            },
            **more,
        },
    }


class Drive:
    """An engine, its clock, and everything it has sent."""

    def __init__(
        self, script: AgentScript, *, model: str = "gpt-realtime-2.1", configure: bool = True
    ) -> None:
        self.engine = Engine(script, model=model)
        self.now = 0
        self.events: list[dict[str, Any]] = []
        self.frames: list[str] = []
        """Frames that are no events of the API's."""
        self.sent: list[dict[str, Any]] = []
        self._take()
        if configure:
            self.send(pcmu_session())

    @property
    def truth(self) -> Any:
        return self.engine.truth

    def send(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Send a client event now; what came of it at once."""
        self.sent.append(event)
        self.engine.receive(json.dumps(event), self.now)
        return self._take()

    def send_raw(self, frame: str | bytes) -> list[dict[str, Any]]:
        self.engine.receive(frame, self.now)
        return self._take()

    def wait(self, ms: int) -> list[dict[str, Any]]:
        """Let time pass; what came meanwhile."""
        self.now += ms
        self.engine.advance(self.now)
        return self._take()

    def hear(self, audio: bytes) -> list[dict[str, Any]]:
        """Append audio at the pace of a telephone line."""
        came = []
        for at in range(0, len(audio), 160):
            frame = base64.b64encode(audio[at : at + 160]).decode()
            came += self.send({"type": "input_audio_buffer.append", "audio": frame})
            came += self.wait(20)
        return came

    def hear_speech(self, speech: Speech, *, quiet_ms: int = 700) -> list[dict[str, Any]]:
        """The caller says a line and is silent."""
        return self.hear(speech.ulaw + SILENCE * (8 * quiet_ms))

    def _take(self) -> list[dict[str, Any]]:
        taken = self.engine.take()
        events = [sent for sent in taken if isinstance(sent, dict)]
        self.frames += [sent for sent in taken if isinstance(sent, str)]
        self.events += events
        return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def only(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one event of that type."""
    found = [event for event in events if event["type"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind} in {kinds(events)}"
    return found[0]


def every(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def only_error(events: list[dict[str, Any]]) -> dict[str, Any]:
    error: dict[str, Any] = only(events, "error")["error"]
    return error


def greeted() -> Drive:
    """A bakery session whose greeting has been generated."""
    drive = Drive(bakery())
    drive.send(CREATE)
    drive.wait(5_000)
    return drive


def agent_item(drive: Drive) -> str:
    return str(drive.truth.agent_items[-1].item_id)


def ask(drive: Drive, event_id: str, **options: Any) -> list[dict[str, Any]]:
    """Ask the model to speak."""
    event: dict[str, Any] = {"type": "response.create", "event_id": event_id}
    return drive.send({**event, "response": options} if options else event)


def said(drive: Drive) -> list[str]:
    """What the model has said so far, item by item."""
    return [item.text.strip() for item in drive.truth.agent_items]


def played(drive: Drive) -> list[str]:
    """What went wrong so far."""
    return [fault.what for fault in drive.truth.faults]
