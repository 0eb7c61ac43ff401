"""Audio of the telephone in numbers: µ-law at 8 kHz, mono, one byte a sample (ITU-T G.711)."""

from __future__ import annotations

BYTES_PER_MS = 8

FRAME_MS = 20
"""What Twilio puts into one media message, as a rule."""

FRAME_BYTES = FRAME_MS * BYTES_PER_MS
