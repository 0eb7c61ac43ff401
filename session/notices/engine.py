"""A speech engine of this machine: makes the audio of a sentence when a worker starts.

A program on ``PATH``, run once for each sentence that has no audio: nothing of it is linked, shipped
or needed otherwise. The text goes to it as its input, never as an argument.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from session.notices import sound
from words.audiofile import AudioFileError, read_audio

TIMEOUT_S = 20.0
"""Of one run; a sentence takes a tenth of a second."""

RATES_HZ = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
"""That engines speak and people record at."""

WORDS_PER_MINUTE = 150
"""Slower than espeak-ng's own 175: a telephone passes fewer consonants."""

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""Of one run: two minutes of what is largest. More is not read."""


def speak(text: str, language: str) -> bytes | None:
    """The sentence as mono µ-law at 8 kHz, at the loudness of a line.

    Args:
        text: The sentence.
        language: BCP 47; of an engine's voice.

    Returns:
        None: no engine of this machine speaks that language.
    """
    for command in _commands(language):
        wav = _run(command, text)
        if wav is None:
            continue
        try:
            audio = read_audio(wav, RATES_HZ)
        except AudioFileError:
            continue
        samples = audio.samples - audio.samples.mean()
        samples = sound.at_telephone_rate(samples, audio.rate_hz)
        speech = sound.at_telephone_level(sound.trimmed(samples))
        if len(speech):
            return sound.ulaw_of(speech)
    return None


def _commands(language: str) -> Iterator[list[str]]:
    """Engines in the order of their quality, each with its voice; ``IN`` and ``OUT`` are files."""
    tag = language.lower()
    primary = tag.partition("-")[0]
    if primary == "en":
        yield ["flite", "-voice", "slt", "-f", "IN", "-o", "OUT"]
    for voice in dict.fromkeys((tag, primary)):
        yield ["espeak-ng", "-v", voice, "-s", str(WORDS_PER_MINUTE), "-f", "IN", "-w", "OUT"]


def _run(command: list[str], text: str) -> bytes | None:
    """What an engine wrote; None: it is not there, failed, or did not end in time."""
    program = shutil.which(command[0])
    if program is None:
        return None
    with TemporaryDirectory(prefix="asheard-notice-") as directory:
        given, made = Path(directory, "text"), Path(directory, "speech.wav")
        given.write_text(text, encoding="utf-8")
        places = {"IN": str(given), "OUT": str(made)}
        arguments = [places.get(argument, argument) for argument in command[1:]]
        try:
            subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
                check=True,
            )
            with made.open("rb") as file:
                data = file.read(MAX_OUTPUT_BYTES)
        except (OSError, subprocess.SubprocessError):
            return None
    return data if data[:4] == b"RIFF" else None
