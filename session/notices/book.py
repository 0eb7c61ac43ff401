"""Which sentences a worker has: settled once, when it starts.

=================================  ==============================================================
the agent file has for a notice    its sentence
=================================  ==============================================================
nothing                            the shipped one in the agent's language; where that is not
                                   shipped, the English one, with a warning
a text and its audio               these
a text                             the text, as a speech engine of this machine speaks it
                                   (:mod:`session.notices.engine`); where none does, the worker
                                   does not start
=================================  ==============================================================
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import yaml

from runtime.errors import ConfigurationError
from runtime.log import get_log
from runtime.units import BYTES_PER_MS
from session.agent import Agent, SpokenNotice
from session.notices import Notice, NoticeBook, Sentence, engine, sound
from words.audiofile import AudioFileError, read_audio

log = get_log(__name__)

SHIPPED = Path(__file__).parent / "shipped"

MIN_MS, MAX_MS = 200, 20_000
"""Length of a notice. Shorter is a click; in longer a caller who is told to wait waits for the
notice."""

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Of recorded audio: 20 s of 16-bit stereo at 48 kHz."""

ENGLISH = "en"


def make_book(agent: Agent, agent_path: Path | None) -> NoticeBook:
    """The sentences that an agent's calls may hear.

    Args:
        agent: Whose file may have its own.
        agent_path: That file: audio is looked for beside it. None: the bundled one.

    Raises:
        ConfigurationError: A sentence has no audio and none can be made, or its audio cannot be
            used.
    """
    name = str(agent_path) if agent_path is not None else "bundled"
    beside = agent_path.parent if agent_path is not None else Path()
    language = _primary(agent.language)
    shipped = language if language in shipped_texts() else ENGLISH
    book: dict[Notice, Sentence] = {}
    foreign: list[str] = []
    for notice in Notice:
        own: str | SpokenNotice | None = getattr(agent.notices, notice.value)
        if own is None:
            book[notice] = _shipped(shipped, notice)
            if shipped != language:
                foreign.append(notice.value)
            continue
        own = SpokenNotice(own) if isinstance(own, str) else own
        key = f"agent file {name}: notices.{notice.value}"
        ulaw = (
            _made(own.text, agent.language, key)
            if own.audio is None
            else _recorded(beside / own.audio, key)
        )
        book[notice] = Sentence.of(own.text, ulaw)
    if foreign:
        log.warning(
            "notices are in English: none are shipped in the agent's language; give them in the agent file",
            language=agent.language,
            notices=foreign,
        )
    return book


@cache
def shipped_texts() -> dict[str, dict[str, str]]:
    """The texts of shipped sentences by language, as its primary subtag, and by notice."""
    texts: dict[str, dict[str, str]] = yaml.safe_load(
        (Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8")
    )
    return texts


def _shipped(language: str, notice: Notice) -> Sentence:
    ulaw = (SHIPPED / f"{language}-{notice.value}.ulaw").read_bytes()
    return Sentence.of(shipped_texts()[language][notice.value], ulaw)


def _made(text: str, language: str, key: str) -> bytes:
    ulaw = engine.speak(text, language)
    if ulaw is None:
        raise ConfigurationError(
            f"{key}: no speech engine on PATH speaks {language!r}; install espeak-ng, or give the sentence "
            "as {text: …, audio: FILE.wav}"
        )
    return _of_bounded_length(ulaw, f"{key}: as the speech engine speaks it")


def _recorded(path: Path, key: str) -> bytes:
    """The audio of a file, as it is but for its rate: how loud it is was its author's choice."""
    key = f"{key}.audio: {path}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{key}: {error.strerror}; give a readable file") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{key}: longer than {MAX_MS // 1000} s; shorten it")
    if data[:4] == b"RIFF":
        try:
            audio = read_audio(data, engine.RATES_HZ)
        except AudioFileError as error:
            raise ConfigurationError(f"{key}: {error}") from error
        samples = audio.samples.astype(np.float64)
        data = sound.ulaw_of(sound.at_telephone_rate(samples, audio.rate_hz))
    elif path.suffix.lower() not in (".ulaw", ".ul", ".raw"):
        raise ConfigurationError(
            f"{key}: no WAV file; give one of 16-bit PCM, or raw mono µ-law at 8 kHz as FILE.ulaw"
        )
    return _of_bounded_length(data, key)


def _of_bounded_length(ulaw: bytes, key: str) -> bytes:
    length_ms = len(ulaw) // BYTES_PER_MS
    if not MIN_MS <= length_ms <= MAX_MS:
        raise ConfigurationError(
            f"{key}: {length_ms / 1000:.1f} s long; between {MIN_MS / 1000} and {MAX_MS // 1000} s is possible"
        )
    return ulaw


def _primary(language: str) -> str:
    """The primary subtag of a BCP 47 tag."""
    return language.replace("_", "-").partition("-")[0].lower()
