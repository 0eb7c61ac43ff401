"""Which words are in the caller's audio: recognition of the speech corpus by its bytes. Pure.

Each word of a known line is looked for by 30 ms from its middle. The lowest bit of each byte is
left out of the comparison, because the simulated carrier writes its frame tags there. Words cut
off in the middle are not found, which is what a transcription would do with them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from simulators.speech import Speech, corpus, spoken
from simulators.speech.g711 import BYTES_PER_MS

_PROBE_BYTES = 240
_WITHOUT_TAG = bytes(code | 1 for code in range(256))


def recognise(ulaw: bytes, also: Sequence[str] = ()) -> str:
    """The words of the one known line that has most of them in this audio; empty if none has.

    Args:
        ulaw: Mono µ-law at 8 kHz.
        also: Lines beyond the recorded ones that the caller may say.
    """
    audio = ulaw.translate(_WITHOUT_TAG)
    found: list[str] = []
    for speech in [*corpus().values(), *map(spoken, also)]:
        words = _words_in(audio, speech)
        if len(words) > len(found):
            found = words
    return " ".join(found)


def _words_in(audio: bytes, speech: Speech) -> list[str]:
    found = []
    at = 0
    for word, probe in _probes(speech):
        hit = audio.find(probe, at)
        if hit >= 0:
            found.append(word)
            at = hit + len(probe)
    return found


@functools.lru_cache(maxsize=4096)
def _probes(speech: Speech) -> Sequence[tuple[str, bytes]]:
    audio = speech.ulaw.translate(_WITHOUT_TAG)
    probes = []
    for word in speech.words:
        middle = (word.start_ms + word.end_ms) * BYTES_PER_MS // 2
        probes.append((word.text, audio[middle - _PROBE_BYTES // 2 : middle + _PROBE_BYTES // 2]))
    return probes
