"""The agent's lines as the simulated model sends them: rendered once, sent many times.

The audio is the simulators' corpus with a tag in the lowest bits of each 20 ms (``frame_tag``: the
line's place and the frame's number), so that Twilio's end can tell what it plays whatever a bridge
made of the deltas. No ear and no aligner minds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import msgspec
import pybase64

from simulators import frame_tag
from simulators.realtime.generation import plan
from simulators.realtime.script import AgentScript, say
from simulators.speech.corpus import Speech, corpus

DELTAS_MS = (250, 500)
"""Lengths of audio deltas; a call keeps to one. 250 ms is what was recorded."""

SPEED = 3.5
"""Audio generated per time; 3.2 to 4.2 were measured on a live service."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One delta of text or audio."""

    due_ms: int
    """From the start of the response."""
    audio: bool
    tail: bytes
    """JSON from the delta's value on: string, closing brace."""
    base64: bytes
    """The audio; empty for text."""
    audio_bytes: int
    chars: int


@functools.cache
def names() -> tuple[str, ...]:
    """Names of the lines a model says; a line's number is its place here."""
    return tuple(name for name in corpus() if "agent-" in name)


def speech(line: int) -> Speech:
    """The line itself, with the times of its words."""
    return corpus()[names()[line]]


@functools.cache
def tagged_audio(line: int) -> bytes:
    """The line's µ-law with a tag in each frame."""
    ulaw = speech(line).ulaw
    return b"".join(
        frame_tag.stamp(ulaw[at : at + frame_tag.FRAME_BYTES], line, at // frame_tag.FRAME_BYTES)
        for at in range(0, len(ulaw), frame_tag.FRAME_BYTES)
    )


@functools.cache
def pieces(line: int, delta_ms: int) -> tuple[Piece, ...]:
    """The line's deltas in the order and at the times of a live model."""
    text = speech(line).text
    audio = tagged_audio(line)
    rendered: list[Piece] = []
    script = AgentScript(delta_ms=delta_ms, speed=SPEED)
    for step in plan(say(text), script, audio=True):
        if step.kind == "text":
            rendered.append(
                Piece(
                    step.due_ms,
                    False,
                    msgspec.json.encode(step.text) + b"}",
                    b"",
                    0,
                    len(step.text),
                )
            )
        elif step.kind == "audio":
            base64 = pybase64.b64encode(audio[step.start_byte : step.end_byte])
            length = step.end_byte - step.start_byte
            rendered.append(Piece(step.due_ms, True, b'"' + base64 + b'"}', base64, length, 0))
    return tuple(rendered)
