"""The caller's ear and mind: decides from what was played when the next step is due. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from simulators.speech import Speech, spoken
from simulators.speech.g711 import BYTES_PER_MS
from simulators.speech.noise import echo, noise
from simulators.twilio.carrier import Carrier
from simulators.twilio.script import (
    Action,
    AgentPlayed,
    AgentSilent,
    AgentWord,
    CallerScript,
    Drop,
    Echo,
    Elapsed,
    HangUp,
    Noise,
    OmitSilence,
    Press,
    Say,
    ShiftTimestamps,
    Step,
)
from simulators.twilio.stream_truth import CallerLine

_PROBE_BYTES = 240
"""30 ms of a word's last 60: enough to be found nowhere else."""


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step of the script that was carried out."""

    index: int
    """Place in the script; the closing step comes last."""
    at_ms: int
    """On the media clock of the stream it happened in."""
    timed_out: bool
    """Its occasion never came."""


@dataclass(slots=True)
class Caller:
    """One caller on one call, over all its streams.

    Drive it with :meth:`listen` at every frame; it acts on the carrier by itself, and returns what
    only the holder of the socket can do.
    """

    script: CallerScript
    taken: list[StepTaken] = field(default_factory=list)
    _since_ms: int = 0
    """From when on the current step's occasion counts."""
    _since_byte: int = 0
    _since_played: int = 0
    _step_began_ms: int = 0
    _line: CallerLine | None = None

    def new_stream(self) -> None:
        """A new stream of the same call: clocks and positions begin anew."""
        self._since_ms = self._since_byte = self._since_played = self._step_began_ms = 0
        self._line = None

    def listen(self, carrier: Carrier, now: int, *, call_ms: int) -> Action | None:
        """Look whether the next step is due, and take it.

        Args:
            carrier: The stream's carrier, advanced to ``now``.
            now: Media clock.
            call_ms: Age of the whole call.

        Returns:
            :class:`HangUp` or :class:`Drop` if the socket is to end; None otherwise.
        """
        if self._line is not None:
            if carrier.speaking or now < self._line.end_ms:
                return None
            self._line = None
        if call_ms >= self.script.max_call_ms:
            return HangUp()
        step = self._step()
        due = self._due(step, carrier, now)
        timed_out = not due and now - self._step_began_ms >= step.timeout_ms
        if not due and not timed_out:
            return None
        self.taken.append(StepTaken(len(self.taken), now, timed_out))
        return self._act(step.action, carrier, now)

    def _step(self) -> Step:
        index = len(self.taken)
        return self.script.steps[index] if index < len(self.script.steps) else self.script.end

    def _act(self, action: Action, carrier: Carrier, now: int) -> Action | None:
        self._since_ms = self._step_began_ms = now
        self._since_byte = carrier.position
        self._since_played = carrier.played_bytes()
        match action:
            case Say(text):
                self._speak(spoken(text), carrier, now)
            case Noise(ms):
                self._speak(noise(ms), carrier, now)
            case Echo(ms):
                start = max(0, carrier.position - ms * BYTES_PER_MS)
                last = bytes(carrier.truth.audio[start : carrier.position])
                self._speak(echo(last), carrier, now)
            case Press(digits):
                for digit in digits:
                    carrier.press(digit, now)
            case ShiftTimestamps(by_ms):
                carrier.shift_timestamps(by_ms, now)
            case OmitSilence(omit):
                carrier.set_omit_silence(omit, now)
            case HangUp() | Drop():
                return action
        return None

    def _speak(self, speech: Speech, carrier: Carrier, now: int) -> None:
        self._line = carrier.speak(speech, now)
        self._since_ms = self._step_began_ms = self._line.end_ms

    def _due(self, step: Step, carrier: Carrier, now: int) -> bool:
        match step.when:
            case Elapsed(ms):
                return now - self._since_ms >= ms
            case AgentPlayed(ms):
                played = carrier.played_bytes() - self._since_played
                return played >= ms * BYTES_PER_MS
            case AgentSilent(ms):
                last = carrier.last_played_ms
                if carrier.playing or last is None or last <= self._since_ms:
                    return False
                return now - last >= ms
            case AgentWord():
                return self._word_heard(step.when, carrier)

    def _word_heard(self, occasion: AgentWord, carrier: Carrier) -> bool:
        """Find the word's sound in what was received, then see whether its end has been played."""
        sound = _sound_of(occasion)
        found = carrier.truth.audio.find(sound.probe, self._since_byte)
        if found < 0:
            return False
        word_end = found + sound.bytes_to_end
        for stretch in carrier.truth.played:
            if stretch.start_byte < word_end <= stretch.end_byte:
                ended_ms = stretch.start_ms + (word_end - stretch.start_byte) // BYTES_PER_MS
                return carrier.now_ms >= ended_ms + occasion.plus_ms
        return False


@dataclass(frozen=True, slots=True)
class _Sound:
    """What to listen for."""

    probe: bytes
    bytes_to_end: int
    """From the probe's start to the end of the word."""


@functools.cache
def _sound_of(occasion: AgentWord) -> _Sound:
    speech = spoken(occasion.line)
    word_end = speech.word_end_ms(occasion.word, occasion.occurrence) * BYTES_PER_MS
    start = max(0, word_end - 2 * _PROBE_BYTES)
    return _Sound(speech.ulaw[start : start + _PROBE_BYTES], word_end - start)
