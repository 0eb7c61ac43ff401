"""Make the speech corpus: µ-law files with exact word times, out of the flite engine.

Run by hand when a line is added, never at run time; needs Debian's ``libflite1`` (version 2.2)::

    python -m simulators.speech.make_corpus

Each sentence of a line is synthesised on its own and joined with the pause a person would make.
The engine's own segment times give the word times: a word, as written between spaces, begins
where the first segment of its first spoken word begins and ends where the last segment of its
last one ends ("$9.05" is five spoken words and one written one). Audio is low-passed at 3.4 kHz,
brought from 16 to 8 kHz and to one loudness, and companded. The same engine gives the same bytes
each time.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from simulators.speech.g711 import SILENCE, linear_to_ulaw

HERE = Path(__file__).parent
RATE_HZ = 8_000
TARGET_RMS = 2_600
"""-22 dB below full scale, the usual level of a telephone line."""

PAUSE_MS = {".": 420, "?": 480, "!": 420}
"""After a sentence, by its last sign; conversational speech pauses 0.3 to 0.6 s there."""

EDGE_MS = 60
"""Silence left before the first and after the last sentence."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One synthesised sentence: 16-bit samples at 8 kHz and its words' times in ms."""

    samples: np.ndarray[Any, np.dtype[np.float64]]
    words: list[tuple[str, float, float]]


class _CstWave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class Flite:
    """The few functions of libflite that synthesis with word times needs."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for name in ("libflite_usenglish.so.1", "libflite_cmulex.so.1"):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for function, result, arguments in (
            ("flite_synth_text", pointer, [text, pointer]),
            ("utt_relation", pointer, [pointer, text]),
            ("utt_wave", ctypes.POINTER(_CstWave), [pointer]),
            ("relation_head", pointer, [pointer]),
            ("item_next", pointer, [pointer]),
            ("item_daughter", pointer, [pointer]),
            ("item_last_daughter", pointer, [pointer]),
            ("ffeature_float", ctypes.c_float, [pointer, text]),
            ("ffeature_string", text, [pointer, text]),
            ("item_feat_string", text, [pointer, text]),
            ("delete_utterance", None, [pointer]),
        ):
            bound = getattr(self._lib, function)
            bound.restype, bound.argtypes = result, arguments
        self._lib.flite_init()
        self._voices: dict[str, int] = {}

    def say(self, text: str, voice: str) -> Sentence:
        """Synthesise one sentence."""
        utterance = self._lib.flite_synth_text(text.encode(), self._voice(voice))
        words = list(self._words(utterance))
        wave = self._lib.utt_wave(utterance).contents
        samples = np.array(wave.samples[: wave.num_samples], dtype=np.float64)
        if wave.sample_rate == 2 * RATE_HZ:
            samples = _halve_rate(samples)
        elif wave.sample_rate != RATE_HZ:
            raise SystemExit(f"voice {voice}: unexpected sample rate {wave.sample_rate}")
        self._lib.delete_utterance(utterance)
        return Sentence(samples, words)

    def _voice(self, name: str) -> int:
        if name not in self._voices:
            library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
            register = getattr(library, f"register_cmu_us_{name}")
            register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
            self._voices[name] = register(None)
        return self._voices[name]

    def _words(self, utterance: int) -> Iterator[tuple[str, float, float]]:
        token = self._lib.relation_head(self._lib.utt_relation(utterance, b"Token"))
        while token:
            first = self._lib.item_daughter(token)
            if first:
                last = self._lib.item_last_daughter(token)
                yield (
                    self._lib.item_feat_string(token, b"name").decode(),
                    1000
                    * self._lib.ffeature_float(
                        first, b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
                    ),
                    1000
                    * self._lib.ffeature_float(
                        last, b"R:SylStructure.daughtern.daughtern.R:Segment.end"
                    ),
                )
            token = self._lib.item_next(token)


def _halve_rate(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """16 to 8 kHz behind a windowed-sinc low-pass at 3.4 kHz, without delay."""
    n = np.arange(-32, 33)
    taps = np.sinc(2 * 3_400 / 16_000 * n) * np.hamming(n.size)
    return np.convolve(samples, taps / taps.sum(), mode="same")[::2]


def render(flite: Flite, text: str, voice: str) -> tuple[bytes, list[tuple[str, int, int]]]:
    """µ-law bytes of a line and its words with start and end in whole ms."""
    pieces = [np.zeros(EDGE_MS * 8)]
    words: list[tuple[str, int, int]] = []
    at_ms = float(EDGE_MS)
    sentences = re.findall(r".+?[.?!](?=\s|$)|.+$", text)
    for index, sentence in enumerate(s.strip() for s in sentences):
        spoken = flite.say(sentence, voice)
        written = sentence.split()
        if len(written) != len(spoken.words):
            raise SystemExit(f"{text!r}: {written} was read as {[w for w, *_ in spoken.words]}")
        # The engine puts 150 to 250 ms of silence around what it says; the pause is ours to set.
        cut_ms, end_ms = spoken.words[0][1] - 20, spoken.words[-1][2] + 40
        samples = spoken.samples[round(cut_ms * 8) : round(end_ms * 8)]
        words += [
            (w, round(at_ms + start - cut_ms), round(at_ms + end - cut_ms))
            for w, (_, start, end) in zip(written, spoken.words, strict=True)
        ]
        pieces.append(samples)
        at_ms += samples.size / 8
        pause_ms = PAUSE_MS[sentence[-1]] if index + 1 < len(sentences) else EDGE_MS
        pieces.append(np.zeros(pause_ms * 8))
        at_ms += pause_ms
    signal = np.concatenate(pieces)
    voiced = signal[np.abs(signal) > 200]
    signal *= TARGET_RMS / np.sqrt(np.mean(voiced**2))
    ulaw = bytes(linear_to_ulaw(int(v)) for v in np.clip(signal, -32_000, 32_000))
    return ulaw + SILENCE * (-len(ulaw) % 160), words


def main() -> None:
    """Write every line of ``lines.yaml`` whose file is missing, or all with ``--all``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="make the files that exist anew, too")
    again = parser.parse_args().all
    flite = Flite()
    for name, line in yaml.safe_load((HERE / "lines.yaml").read_text()).items():
        ulaw_path = HERE / "lines" / f"{name}.ulaw"
        if ulaw_path.exists() and not again:
            continue
        ulaw, words = render(flite, line["text"], line["voice"])
        ulaw_path.write_bytes(ulaw)
        about = {"name": name, "text": line["text"], "voice": line["voice"], "words": words}
        ulaw_path.with_suffix(".json").write_text(json.dumps(about) + "\n")
        print(f"{name}: {len(ulaw) / 8000:.2f} s, {len(words)} words")


if __name__ == "__main__":
    main()
