"""Speech for texts without a recording: a burst of tone for every syllable.

No words can be understood in it, but everything else is like speech: loudness and rhythm that a
voice activity detector takes for a voice, pauses at punctuation, a pitch of its own for each word
(so that one stretch of audio is not mistaken for another), and word times exact to the ms. The same
text gives the same bytes on every machine: integer arithmetic and a checksum, no randomness.
"""

from __future__ import annotations

import re
import zlib

from simulators.speech.g711 import BYTES_PER_MS, SILENCE, linear_to_ulaw

SYLLABLE_MS = 170
"""About 5 to 6 syllables a second within a word, as in unhurried speech."""
WORD_GAP_MS = 30
COMMA_MS = 200
SENTENCE_MS = 420
"""Pauses after ``,;:`` and ``.?!``."""
LEAD_MS = 60
TAIL_MS = 60
PEAK = 9_000
"""Loudest sample of 16 bits: -21 dB below full scale on average, as the recorded lines."""


def speak(text: str) -> tuple[bytes, list[tuple[str, int, int]]]:
    """µ-law bytes of a text, and its words with start and end in ms; a multiple of 20 ms long."""
    audio = bytearray(SILENCE * (LEAD_MS * BYTES_PER_MS))
    words = []
    for index, word in enumerate(text.split()):
        start_ms = len(audio) // BYTES_PER_MS
        pitch_hz = 110 + zlib.crc32(f"{index} {word}".encode()) % 190
        for syllable in range(_syllables(word)):
            audio += _burst(pitch_hz + 12 * syllable)
        words.append((word, start_ms, len(audio) // BYTES_PER_MS))
        pause_ms = {",": COMMA_MS, ";": COMMA_MS, ":": COMMA_MS}.get(word[-1], WORD_GAP_MS)
        if word[-1] in ".?!":
            pause_ms = SENTENCE_MS
        audio += SILENCE * (pause_ms * BYTES_PER_MS)
    audio += SILENCE * (TAIL_MS * BYTES_PER_MS)
    audio += SILENCE * (-len(audio) % (20 * BYTES_PER_MS))
    return bytes(audio), words


def _syllables(word: str) -> int:
    """Groups of vowels, and one for each digit."""
    return max(1, len(re.findall(r"[aeiouyäöüéèáíóú]+|\d", word.casefold())))


def _burst(pitch_hz: int) -> bytes:
    """One syllable: a triangle wave with its third harmonic, swelling and fading within 20 ms."""
    samples = SYLLABLE_MS * BYTES_PER_MS
    edge = 20 * BYTES_PER_MS
    out = bytearray(samples)
    for i in range(samples):
        wave = _triangle(i * pitch_hz) * 2 // 3 + _triangle(3 * i * pitch_hz) // 3
        level = min(edge, i, samples - i)
        out[i] = linear_to_ulaw(wave * level // edge)
    return bytes(out)


def _triangle(phase: int) -> int:
    """A triangle between -PEAK and PEAK; one turn is 8,000 units of phase."""
    phase %= 8_000
    rising = phase if phase < 4_000 else 8_000 - phase
    return PEAK * (rising - 2_000) // 2_000
