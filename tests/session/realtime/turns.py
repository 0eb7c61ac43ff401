"""What callers and models do in tests of who speaks next."""

from __future__ import annotations

from session.agent import parse_agent
from session.notices import Notice, Sentence
from session.realtime import events
from tests.session.realtime.talk import Talk

GREETING = events.ResponseOptions("Be brief.\n\nSay hello.")
PATIENT = parse_agent(
    "name: x\ninstructions: Be brief.\nturn_detection: {type: server_vad, interrupt_response: false}\n",
    name="inline",
)
BOOK = {
    Notice.HOLD: Sentence.of("One moment, please.", b"\x55" * 8_000),
    Notice.SORRY: Sentence.of("Could you say that again?", b"\x55" * 16_000),
}
"""A second, and two."""
ACTIVE = "conversation_already_has_active_response"


def refuse(
    talk: Talk, code: str = "server_error", *, named: bool = True, message: str = ""
) -> None:
    """The server's No to the last request."""
    event_id = talk.requests[-1].event_id if named else None
    talk.server("error", error={"code": code, "event_id": event_id, "message": message})


def fail(talk: Talk, response_id: str, message: str = "", code: str = "server_error") -> None:
    """A response begins and fails."""
    talk.response(response_id)
    talk.response_done(
        response_id, "failed", {"type": "failed", "error": {"code": code, "message": message}}
    )


def caller_turn(talk: Talk, item_id: str = "U") -> None:
    talk.caller_speaks(item_id)
    talk.caller_stops(item_id)


def text_only(talk: Talk, response_id: str) -> None:
    talk.response(response_id)
    item = {
        "id": f"T_{response_id}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "We open at nine."}],
    }
    talk.server("response.output_item.done", response_id=response_id, item=item)
    talk.response_done(response_id)
