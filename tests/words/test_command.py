"""``asheard align``, as a person and as a machine use it."""

from __future__ import annotations

import argparse
import base64
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.words.speech import DATA, piece
from words import command
from words.audiofile import AudioFileError, read_audio
from words.energy import ULAW_TO_LINEAR

CARD = str(DATA / "en_card.ulaw")


def run(*args: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(args))


def wav(sound: bytes, *, kind: int, rate_hz: int, bits: int, channels: int = 1) -> bytes:
    block = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(sound))
    return b"RIFF" + struct.pack("<I", len(body) + len(sound)) + body + sound


def pcm(ulaw: bytes) -> bytes:
    return ULAW_TO_LINEAR[np.frombuffer(ulaw, np.uint8)].astype("<i2").tobytes()


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(CARD, "--text", piece("en_card").text) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["start", "ms", "end", "ms", "word"]
    assert lines[-2].split()[-1] == "right?"
    assert lines[-1].startswith("5220 ms of audio; aligned (phone-hmm/")


def test_partial_marks_words_without_audio(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cut.ulaw").write_bytes(piece("en_card").until(1000))
    assert run(str(tmp_path / "cut.ulaw"), "--partial", "--text", piece("en_card").text) == 0
    out = capsys.readouterr().out
    assert "right?   (no audio)" in out
    assert "Can   (no audio)" not in out


def test_json_from_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    known = piece("es_balance")
    (tmp_path / "text.txt").write_text(known.text, "utf-8")
    (tmp_path / "speech.wav").write_bytes(wav(pcm(known.ulaw), kind=1, rate_hz=8000, bits=16))
    args = (str(tmp_path / "speech.wav"), "--text-file", str(tmp_path / "text.txt"))
    assert run(*args, "--language", "es", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["method"] == "aligned"
    assert [w["text"] for w in answer["words"]] == known.words
    errors = [abs(w["end_ms"] - b) for w, (_, b) in zip(answer["words"], known.times, strict=True)]
    assert sorted(errors)[len(errors) // 2] < 40


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "give AUDIO"),
        ((CARD,), "give what is said with --text"),
        (("no-such-file", "--text", "x"), "cannot read no-such-file: No such file"),
        ((CARD, "--text-file", "no-such-file"), "cannot read no-such-file"),
        ((CARD, "--text-file", CARD), "is not UTF-8 text"),
        ((CARD, "--jsonl"), "--jsonl reads audio and words from standard input"),
    ],
)
def test_bad_usage(args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert error.startswith("asheard align: ")
    assert message in error


def bulk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *lines: str
) -> tuple[int, list[dict[str, object]], str]:
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    status = run("--jsonl")
    captured = capsys.readouterr()
    return status, [json.loads(line) for line in captured.out.splitlines()], captured.err


def request(name: object, ulaw: bytes, words: list[str], **more: object) -> str:
    encoded = base64.b64encode(ulaw).decode()
    return json.dumps({"id": name, "ulaw_b64": encoded, "words": words, **more})


def test_in_bulk_one_answer_a_line_in_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known, other = piece("en_card"), piece("it_calm")
    status, answers, _ = bulk(
        monkeypatch, capsys,
        request("a", known.ulaw, known.words, language="en", complete=True),
        "",
        request(2, other.until(900), other.words, language="it", complete=False),
        request("c", b"", ["hello", "there"]),
        request("d", known.ulaw, []),
    )  # fmt: skip
    assert status == 0
    assert [answer["id"] for answer in answers] == ["a", 2, "c", "d"]
    assert [answer["method"] for answer in answers][:2] == ["aligned", "aligned"]
    whole, cut, empty, none = (answer["times"] for answer in answers)
    assert len(whole) == len(known.words)  # type: ignore[arg-type]
    assert cut[-1][0] >= 900  # type: ignore[index]
    assert all(start >= 0 for start, _ in empty)  # type: ignore[attr-defined]
    assert none == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ('{"id": "x"}', "missing required field `ulaw_b64`"),
        ('{"id": "x", "ulaw_b64": "?", "words": []}', "Invalid base64"),
        ('{"id": "x", "ulaw_b64": "", "words": "all"}', "$.words"),
    ],
)
def test_in_bulk_a_bad_line_is_named(
    line: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, answers, error = bulk(monkeypatch, capsys, request("a", b"", []), line)
    assert status == 2
    assert [answer["id"] for answer in answers] == ["a"]
    assert "line 2" in error
    assert message in error


def test_kinds_of_audio_files() -> None:
    ulaw = piece("it_calm").ulaw
    linear = np.frombuffer(pcm(ulaw), "<i2")
    for data in (
        ulaw,
        wav(ulaw, kind=7, rate_hz=8000, bits=8),
        wav(pcm(ulaw), kind=1, rate_hz=8000, bits=16),
        wav(np.repeat(linear, 2).tobytes(), kind=1, rate_hz=8000, bits=16, channels=2),
        wav(pcm(ulaw), kind=1, rate_hz=8000, bits=16) + b"x",
    ):
        audio = read_audio(data)
        assert audio.rate_hz == 8000
        np.testing.assert_array_equal(audio.samples[: len(linear)], linear)
    assert read_audio(wav(pcm(ulaw), kind=1, rate_hz=24000, bits=16)).rate_hz == 24000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wav(b"", kind=3, rate_hz=8000, bits=32), "convert it to 16-bit PCM"),
        (wav(b"", kind=1, rate_hz=44100, bits=16), "8000, 16000 or 24000 Hz"),
        (b"RIFF\x04\x00\x00\x00WAVE", "without a format"),
    ],
)
def test_audio_files_that_are_not_read(data: bytes, message: str) -> None:
    with pytest.raises(AudioFileError, match=message):
        read_audio(data)
