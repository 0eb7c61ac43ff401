"""Make the audio of the sentences that a session worker says without the model.

Run by hand when a sentence changes, never at run time; needs Debian 12's ``libflite1`` (2.2-5) and
``espeak-ng`` (1.51)::

    python -m simulators.speech.make_notices

English is spoken by flite's voice slt, as the corpus is (:mod:`.make_corpus`); flite speaks no
other language, so the rest is espeak-ng's. Whatever made it is low-passed at 3.4 kHz, brought to
8 kHz and to one loudness, and companded. The same engines give the same bytes each time.
"""

from __future__ import annotations

from session.notices import Notice, engine
from session.notices.book import SHIPPED, shipped_texts
from simulators.speech.make_corpus import Flite, render


def spoken(text: str, voice: str, flite: Flite) -> bytes:
    """A sentence as mono µ-law at 8 kHz.

    Args:
        text: The sentence.
        voice: One of flite's by its name, else one of espeak-ng's by its language.
        flite: The engine.
    """
    if voice == "slt":
        ulaw, _ = render(flite, text, voice)
        return ulaw
    made = engine.speak(text, voice)
    if made is None:
        raise SystemExit(f"espeak-ng has no voice {voice}, or is not there")
    return made


def main() -> None:
    """Write the audio of every sentence."""
    flite = Flite()
    for language, texts in shipped_texts().items():
        for notice in Notice:
            ulaw = spoken(texts[notice.value], texts["voice"], flite)
            (SHIPPED / f"{language}-{notice.value}.ulaw").write_bytes(ulaw)
            print(f"{language} {notice.value}: {len(ulaw) / 8000:.2f} s")


if __name__ == "__main__":
    main()
