"""Which sentences a worker has: shipped, recorded, or made by an engine of its machine."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import structlog

from runtime.errors import ConfigurationError
from session.agent import SpokenNotice, parse_agent
from session.notices import Notice, Sentence, engine
from session.notices.book import SHIPPED, make_book, shipped_texts
from words.audiofile import read_audio

AGENT = "name: x\ninstructions: Be brief.\n"


def book_of(more: str, path: Path | None = None) -> dict[Notice, Sentence]:
    agent = parse_agent(AGENT + more, name="inline")
    return dict(make_book(agent, path))


def audio_of(sentence: Sentence) -> bytes:
    return b"".join(map(base64.b64decode, sentence.pieces))


def wav(samples: np.ndarray, rate_hz: int, *, channels: int = 1, kind: int = 1) -> bytes:
    bits = 8 if kind == 7 else 16
    data = samples.astype(np.uint8 if kind == 7 else "<i2").tobytes()
    header = struct.pack(
        "<HHIIHH",
        kind,
        channels,
        rate_hz,
        rate_hz * channels * bits // 8,
        channels * bits // 8,
        bits,
    )
    chunks = (
        b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data)) + data
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@contextmanager
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.mark.parametrize("language", ["de", "de-AT", "DE_ch"])
def test_a_shipped_language_is_found_by_its_primary_subtag(language: str) -> None:
    with logged() as lines:
        book = book_of(f"language: {language}\n")
    assert book[Notice.HOLD].text == "Einen Moment, bitte."
    assert audio_of(book[Notice.HOLD]) == (SHIPPED / "de-hold.ulaw").read_bytes()
    assert lines == []


def test_another_language_is_told_in_english_and_the_operator_is_warned() -> None:
    with logged() as lines:
        book = book_of("language: fi\n")
    assert {n: s.text for n, s in book.items()} == {
        n: shipped_texts()["en"][n.value] for n in Notice
    }
    (line,) = lines
    assert line["log_level"] == "warning" and line["language"] == "fi"
    assert line["notices"] == ["hold", "sorry", "goodbye"]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_a_recording_is_taken_with_its_loudness_whatever_its_rate(
    tmp_path: Path, rate_hz: int
) -> None:
    tone = 5_000 * np.sin(2 * np.pi * 440 * np.arange(2 * rate_hz) / rate_hz)
    (tmp_path / "hold.wav").write_bytes(wav(tone, rate_hz))
    book = book_of("notices: {hold: {text: Tuut., audio: hold.wav}}\n", tmp_path / "agent.yaml")
    made = read_audio(audio_of(book[Notice.HOLD])).samples.astype(float)
    assert book[Notice.HOLD].text == "Tuut." and len(made) == 16_000
    inner = made[800:-800]
    assert np.sqrt(np.mean(inner**2)) == pytest.approx(5_000 / np.sqrt(2), rel=0.03)
    expected = 5_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 8_000)
    assert np.corrcoef(made, expected)[0, 1] > 0.999, "in the right place, too"


def test_what_a_telephone_does_not_pass_is_not_folded_into_what_it_does(tmp_path: Path) -> None:
    hiss = 5_000 * np.sin(2 * np.pi * 7_000 * np.arange(48_000) / 48_000)
    (tmp_path / "a.wav").write_bytes(wav(hiss, 48_000))
    book = book_of("notices: {hold: {text: S., audio: a.wav}}\n", tmp_path / "agent.yaml")
    made = read_audio(audio_of(book[Notice.HOLD])).samples.astype(float)[200:-200]
    assert np.abs(made).max() < 50


def test_raw_telephone_audio_is_taken_as_it_is(tmp_path: Path) -> None:
    ulaw = bytes(range(256)) * 20
    (tmp_path / "bye.ulaw").write_bytes(ulaw)
    path = tmp_path / "bye.ulaw"
    book = book_of(f"notices: {{goodbye: {{text: Bye., audio: {path}}}}}\n")
    assert audio_of(book[Notice.GOODBYE]) == ulaw
    codes = np.frombuffer(ulaw, np.uint8)
    path.with_suffix(".wav").write_bytes(wav(codes, 8_000, kind=7))
    more = "notices: {goodbye: {text: Bye., audio: bye.wav}}\n"
    again = audio_of(book_of(more, tmp_path / "agent.yaml")[Notice.GOODBYE])
    taken, given = read_audio(again).samples, read_audio(ulaw).samples
    assert np.abs(taken.astype(int) - np.clip(given, -32_000, 32_000)).max() <= 1_024


@pytest.mark.parametrize(
    ("content", "name", "fault"),
    [
        (None, "a.wav", "give a readable file"),
        (b"ID3" + bytes(9_000), "a.mp3", "no WAV file; give one of 16-bit PCM"),
        (b"RIFF\0\0\0\0WAVE", "a.wav", "without a format"),
        (b"\xff" * 800, "a.ulaw", "0.1 s long; between 0.2 and 20 s is possible"),
        (b"\xff" * 8 * 20_020, "a.ulaw", "20.0 s long; between 0.2 and 20 s is possible"),
        (b"\xff" * (5 * 1024 * 1024), "a.ulaw", "longer than 20 s"),
        (wav(np.zeros(9_000), 11_025), "a.wav", "at 11025 Hz; convert it to 8000, 16000, 22050"),
        (wav(np.zeros(9_000), 8_000, kind=3), "a.wav", "convert it to 16-bit PCM"),
    ],
)
def test_a_recording_that_cannot_be_used_is_one_error_that_names_the_fix(
    tmp_path: Path, content: bytes | None, name: str, fault: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        book_of(f"notices: {{hold: {{text: Hm., audio: {name}}}}}\n", tmp_path / "agent.yaml")
    text = str(raised.value)
    assert "notices.hold" in text and name in text and fault in text


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("notices: {goodby: Bye.}", "notices.goodby: unknown key (did you mean goodbye?)"),
        ("notices: {hold: {txt: Hi.}}", "notices.hold.txt: unknown key (did you mean text?)"),
        ("notices: {hold: {audio: a.wav}}", "notices.hold.text: missing"),
        ("notices: {hold: ''}", "notices.hold: expected `str` of length >= 1"),
        ("notices: {hold: 5}", "notices.hold: expected `str | object | null`, got `int`"),
    ],
)
def test_a_fault_in_the_file_is_named(more: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_agent(AGENT + more, name="inline")
    assert fault in str(raised.value)


def test_the_example_of_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    example = page.partition("## Notices")[2].partition("```yaml\n")[2].partition("```")[0]
    notices = parse_agent(AGENT + example, name="agent.md").notices
    assert notices.hold == "Hetkinen, olkaa hyvä."
    assert isinstance(notices.sorry, SpokenNotice) and notices.sorry.audio == "sorry.wav"


def an_engine(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_a_text_without_audio_is_spoken_by_an_engine_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = 900 * np.sin(2 * np.pi * 300 * np.arange(22_050) / 22_050)
    (tmp_path / "tone.wav").write_bytes(wav(tone, 22_050))
    programs = tmp_path / "bin"
    an_engine(
        programs,
        "espeak-ng",
        f'[ "$2" = "fi" ] || exit 1\n/bin/cp "$6" {tmp_path}/told\n/bin/cp {tmp_path}/tone.wav "$8"',
    )
    monkeypatch.setenv("PATH", str(programs))
    book = book_of("language: fi-FI\nnotices: {hold: 'Hetkinen; -v \"x\", ole hyvä.'}\n")
    assert (tmp_path / "told").read_text() == 'Hetkinen; -v "x", ole hyvä.'
    made = read_audio(audio_of(book[Notice.HOLD])).samples.astype(float)
    assert 1_000 <= len(made) / 8 <= 1_140, "a second, between 60 ms of silence"
    loud = made[np.abs(made) > 200]
    assert np.sqrt(np.mean(loud**2)) == pytest.approx(2_600, rel=0.1)


@pytest.mark.parametrize("script", ["exit 1", "exec /bin/sleep 30", '/bin/echo nonsense > "$8"'])
def test_an_engine_that_cannot_speak_is_one_error_that_names_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    an_engine(tmp_path / "bin", "espeak-ng", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(engine, "TIMEOUT_S", 0.3)
    with pytest.raises(ConfigurationError, match=r"notices\.hold: no speech engine .* 'fi'"):
        book_of("language: fi\nnotices: {hold: Hetkinen.}\n")


def test_no_engine_is_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="install espeak-ng, or give the sentence"):
        book_of("notices: {sorry: 'Well, that went wrong.'}\n")
