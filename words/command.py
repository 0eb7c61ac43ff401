"""``asheard align``: word times of a piece of speech, for people and in bulk for machines."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from words.aligner.item import ItemAligner
from words.audiofile import AudioFileError, read_audio
from words.energy import audible_spans
from words.proportional import proportional_times
from words.timing import WordTimes
from words.tokenize import Token, tokenize

_BAD_USAGE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.description = (
        "Print when each word of a piece of speech sounds. AUDIO is a WAV file (16-bit PCM or "
        "µ-law at 8, 16 or 24 kHz) or raw µ-law at 8 kHz."
    )
    parser.add_argument("audio", nargs="?", metavar="AUDIO", help="the speech; - is standard input")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--text", help="what is said in it")
    text.add_argument("--text-file", metavar="F", help="a UTF-8 file with what is said in it")
    parser.add_argument(
        "--language", default="en", help="BCP 47 tag of what is spoken (default: %(default)s)"
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="the audio may stop before the text does, as when generation was cut off",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help='align in bulk: each line of standard input is {"id", "ulaw_b64", "words", '
        '"language", "complete"}, each line of output {"id", "times", "method"}',
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; return its exit status: 0 done, 2 bad usage or input."""
    if args.jsonl:
        if args.audio or args.text is not None or args.text_file:
            return _refuse("--jsonl reads audio and words from standard input; give no others")
        return _bulk(sys.stdin.buffer, sys.stdout)
    if not args.audio:
        return _refuse("give AUDIO, the file with the speech, or --jsonl")
    if args.text is None and not args.text_file:
        return _refuse("give what is said with --text TEXT or --text-file FILE")
    try:
        text = args.text if args.text is not None else Path(args.text_file).read_text("utf-8")
        data = sys.stdin.buffer.read() if args.audio == "-" else Path(args.audio).read_bytes()
        audio = read_audio(data)
    except OSError as error:
        return _refuse(f"cannot read {error.filename}: {error.strerror}")
    except UnicodeDecodeError:
        return _refuse(f"--text-file {args.text_file} is not UTF-8 text")
    except AudioFileError as error:
        return _refuse(f"{args.audio}: {error}")
    aligner = ItemAligner(args.language, rate_hz=audio.rate_hz)
    aligner.add_samples(audio.samples)
    aligner.add_text(text)
    times = aligner.finish(complete=not args.partial)
    if not times.confidence:
        times = proportional_times(tokenize(text), times.audio_ms, complete=not args.partial)
    print(json.dumps(_as_json(times), ensure_ascii=False) if args.json else _as_table(times))
    return 0


def _refuse(message: str) -> int:
    print(f"asheard align: {message}", file=sys.stderr)
    return _BAD_USAGE


def _as_json(times: WordTimes) -> dict[str, Any]:
    return {
        "method": times.method.value,
        "version": times.version,
        "confidence": times.confidence,
        "audio_ms": times.audio_ms,
        "words": [
            {
                "text": word.text,
                "char_start": word.char_start,
                "char_end": word.char_end,
                "start_ms": word.start_ms,
                "end_ms": word.end_ms,
            }
            for word in times.words
        ],
    }


def _as_table(times: WordTimes) -> str:
    lines = [f"{'start ms':>9} {'end ms':>8}  word"]
    for word in times.words:
        without = "   (no audio)" if word.start_ms >= times.audio_ms else ""
        lines.append(f"{word.start_ms:9d} {word.end_ms:8d}  {word.text}{without}")
    lines.append(
        f"{times.audio_ms} ms of audio; {times.method.value} ({times.version}), "
        f"confidence {times.confidence:.2f}"
    )
    return "\n".join(lines)


# -- in bulk --------------------------------------------------------------------------------------


class _Request(msgspec.Struct):
    """One line of ``--jsonl``."""

    id: str | int
    ulaw_b64: bytes
    words: list[str]
    language: str = "en"
    complete: bool = True


def _bulk(lines: Any, out: TextIO) -> int:
    """Answer line by line, in order; stop at the first line that is not a request."""
    decoder = msgspec.json.Decoder(_Request)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            request = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refuse(f"line {number}: {error}")
        times = times_of_words(
            request.ulaw_b64, request.words, request.language, complete=request.complete
        )
        answer = {
            "id": request.id,
            "times": [[word.start_ms, word.end_ms] for word in times.words],
            "method": times.method.value,
        }
        print(json.dumps(answer, ensure_ascii=False), file=out, flush=True)
    return 0


def times_of_words(ulaw: bytes, words: list[str], language: str, *, complete: bool) -> WordTimes:
    """Align words that were told apart elsewhere; by characters where there is nothing to align."""
    aligner = ItemAligner(language)
    aligner.add_words(words)
    aligner.add_audio(ulaw)
    times = aligner.finish(complete)
    if times.confidence:
        return times
    tokens = [Token(word.text, word.char_start, word.char_end) for word in times.words]
    return proportional_times(
        tokens, times.audio_ms, complete=complete, audible=audible_spans(ulaw)
    )
