"""Sessions that between them show every event the simulator takes and sends."""

from __future__ import annotations

from typing import Any

from simulators.realtime.script import (
    AgentScript,
    CallTool,
    Failure,
    Hearing,
    Reply,
    Speak,
    bakery,
    say,
)
from simulators.speech import spoken
from simulators.speech.g711 import SILENCE
from tests.simulators.realtime.drive import PCMU, Drive, pcmu_session

CREATE = {"type": "response.create", "event_id": "create"}


def item(**fields: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "event_id": "seed", "item": fields}


def a_call_with_barge_in() -> Drive:
    """Greeting, order, quote, interruption, truncation."""
    drive = Drive(bakery())
    drive.send(CREATE)
    drive.wait(4_000)
    drive.hear_speech(spoken("I want bagels and a soda."))
    drive.wait(500)
    drive.hear(SILENCE * 8_000)
    drive.hear_speech(spoken("Sorry for interrupting, do you also have coffee?"))
    spoken_item = drive.truth.agent_items[1].item_id
    drive.send(
        {
            "type": "conversation.item.truncate",
            "event_id": "t",
            "item_id": spoken_item,
            "content_index": 0,
            "audio_end_ms": 900,
        }
    )
    drive.send({"type": "conversation.item.retrieve", "item_id": spoken_item})
    drive.wait(5_000)
    drive.send({"type": "conversation.item.delete", "item_id": drive.truth.agent_items[2].item_id})
    return drive


def a_written_conversation() -> Drive:
    """Seeded history, text output, a tool with words before it, a failed transcription."""
    tool = Reply((Speak("Let me look that up."), CallTool("quote", '{"items": ["bagel"]}')))
    script = AgentScript(
        replies=(tool, say("It is $9.05.")), hearings=(Hearing(failure="DeploymentNotFound"),)
    )
    drive = Drive(script, configure=False)
    quote = {
        "type": "function",
        "name": "quote",
        "description": "Price of an order.",
        "parameters": {"type": "object", "properties": {}},
    }
    update = pcmu_session(
        output_modalities=["text"],
        tools=[quote],
        tool_choice="auto",
        instructions="Be brief.",
        max_output_tokens=500,
    )
    update["session"]["audio"]["input"]["turn_detection"] = None
    update["session"]["audio"]["input"]["noise_reduction"] = {"type": "near_field"}
    drive.send(update)
    drive.send(
        item(
            type="message",
            role="system",
            content=[{"type": "input_text", "text": "The caller was cut off here."}],
        )
    )
    drive.send(
        item(type="message", role="assistant", content=[{"type": "output_text", "text": "Hello."}])
    )
    drive.send(
        item(
            type="message",
            role="user",
            id="u1",
            content=[{"type": "input_text", "text": "How much is a bagel?"}],
        )
    )
    drive.send(CREATE)
    drive.wait(3_000)
    call_id = next(
        e["call_id"] for e in drive.events if e["type"] == "response.function_call_arguments.done"
    )
    drive.send(item(type="function_call_output", call_id=call_id, output="$9.05"))
    drive.send({**CREATE, "response": {"instructions": "Say the price.", "metadata": {"a": "b"}}})
    drive.wait(3_000)
    drive.hear(spoken("Yes.").ulaw)
    drive.send({"type": "input_audio_buffer.commit"})
    drive.send({"type": "input_audio_buffer.clear"})
    drive.wait(1_000)
    return drive


def a_session_of_mishaps() -> Drive:
    """Refusals, a failed response, a cancelled one, an interrupted one, expiry."""
    long = Speak(
        "I am not a doctor. If you have chest pain or trouble breathing, hang up "
        "and call for an ambulance now."
    )
    script = AgentScript(
        replies=(
            Reply((long,), failure=Failure()),
            Reply((long,), failure=Failure("incomplete", "content_filter", "", 500)),
            say(long.text),
            Reply((long,), speed=0.9),
        ),
        expires_after_ms=60_000,
    )
    drive = Drive(script)
    drive.send({"type": "response.cancel", "event_id": "nothing"})
    drive.send(CREATE)
    drive.wait(2_000)
    drive.send({**CREATE, "response": {"audio": {"output": {"format": PCMU, "voice": "cedar"}}}})
    drive.wait(2_000)
    drive.send(CREATE)
    drive.send(CREATE)
    drive.wait(600)
    drive.send({"type": "response.cancel"})
    drive.wait(500)
    drive.send(CREATE)
    drive.wait(2_000)
    drive.hear_speech(spoken("No, wait."))
    drive.wait(60_000)
    return drive


ALL = (a_call_with_barge_in, a_written_conversation, a_session_of_mishaps)
