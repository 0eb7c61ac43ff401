"""Sounds of the caller's that are no speech: noise on the line, and the agent's own voice as an echo.

Both are loud enough for a voice activity detector, and no word of the corpus is recognised in them.
The same length gives the same bytes on every machine.
"""

from __future__ import annotations

import functools

from simulators.speech.corpus import Speech
from simulators.speech.g711 import BYTES_PER_MS, ULAW_TO_LINEAR, linear_to_ulaw

_PEAK = 9_000
"""Loudest sample of 16 bits, as of the tones."""
_ECHO_OF = bytes(linear_to_ulaw(sample // 2) for sample in ULAW_TO_LINEAR)
"""Half as loud, 6 dB less than the agent's voice, for ``bytes.translate``."""


@functools.lru_cache(maxsize=64)
def noise(ms: int) -> Speech:
    """A cough, a door, a lorry: so much noise, without a word in it."""
    state = 1
    out = bytearray()
    for _ in range(ms * BYTES_PER_MS):
        state = (state * 1_103_515_245 + 12_345) % 2**31
        out.append(linear_to_ulaw((state >> 8) % (2 * _PEAK) - _PEAK))
    return Speech(f"noise:{ms}", "", (), bytes(out), "noise")


def echo(ulaw: bytes) -> Speech:
    """What the agent has just said, as it comes back from the caller's loudspeaker."""
    return Speech("echo", "", (), ulaw.translate(_ECHO_OF), "echo")
