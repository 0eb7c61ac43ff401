"""Makes sets of synthetic speech whose word times are known, to measure the aligner on.

    python bench/alignment_sets.py OUT [--sets festival_slt_w,espeak_fr_w]

Needs Debian's flite, festival (festvox-kallpc16k, festvox-kdlpc16k, festvox-us-slt-hts,
festvox-italp16k, festvox-itapc16k) and espeak-ng, and writes what
``score_alignment.py`` reads: for each piece ``NNN.json`` (words, times, language, length) and
``NNN.ulaw``. Nothing of this is part of the product, which imports none of these programs.

The times are the synthesizers' own: festival's and flite's utterance structures, espeak-ng's phoneme
events. Sets whose name ends in ``_w`` are then warped: every quarter to half second the speech is
stretched or squeezed to 0.72 to 1.4 of its length (overlap-add of similar waveforms, with the exact
map of times), so that a duration model fitted to a synthesizer's rules earns nothing by that. Noise at
-50 dB keeps digital silence out.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess
import sys
import tempfile
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.alignment_texts import TEXTS

Samples = npt.NDArray[np.float64]
Times = list[tuple[float, float]]
RATE_HZ = 8000


def shown_and_said(marked: str) -> tuple[list[str], list[str]]:
    """Displayed words, and what is said for each of them."""
    shown: list[str] = []
    said: list[str] = []
    for match in re.finditer(r"\[(\S+?)\|([^\]]+)\](\S*)|(\S+)", marked):
        shown.append(match[4] or match[1] + match[3])
        said.append(match[4] or match[2] + match[3])
    return shown, said


def merge(times: Times, said: list[str]) -> Times:
    """Times of the displayed words from the times of all spoken words in order."""
    counts = [len(text.split()) for text in said]
    if len(times) != sum(counts):
        raise ValueError(f"{len(times)} word times for {sum(counts)} words")
    merged: Times = []
    place = 0
    for count in counts:
        merged.append((times[place][0], times[place + count - 1][1]))
        place += count
    return merged


# -- festival -------------------------------------------------------------------------------------

_FESTIVAL_SCRIPT = """
(voice_{voice})
(define (piece text wave out)
  (let ((u (utt.synth (eval (list 'Utterance 'Text text)))) (f (fopen out "w")))
    (utt.save.wave u wave 'riff)
    (mapcar (lambda (tok)
      (let ((ws (item.daughters tok)))
        (cond
          ((item.parent tok) nil)
          (ws (format f "%s %f %f\\n" (item.name tok)
            (item.feat (car ws) "word_start")
            (let ((end 0))
              (mapcar (lambda (w)
                (if (> (item.feat w "word_end") end) (set! end (item.feat w "word_end")))) ws)
              end)))
          (t (format f "%s -1 -1\\n" (item.name tok))))))
      (utt.relation.items u 'Token))
    (fclose f)))
"""


def festival(voice: str, texts: list[str], folder: Path) -> list[tuple[Samples, Times]]:
    """Speak with a festival voice; its Token relation gives the times."""
    script = _FESTIVAL_SCRIPT.format(voice=voice)
    for n, text in enumerate(texts):
        script += f'(piece "{text}" "{folder}/{n}.wav" "{folder}/{n}.txt")\n'
    path = folder / "script.scm"
    # The old Italian voices expect ISO 8859-1.
    path.write_text(script, encoding="latin-1")
    subprocess.run(["festival", "-b", str(path)], check=True, capture_output=True, timeout=600)
    out: list[tuple[Samples, Times]] = []
    for n in range(len(texts)):
        lines = (folder / f"{n}.txt").read_text(encoding="latin-1").splitlines()
        times: Times = []
        for line in lines:
            start, end = (1000 * float(x) for x in line.split()[-2:])
            if start < 0:  # a token that was not spoken
                start = end = times[-1][1] if times else 0.0
            times.append((start, end))
        with wave.open(str(folder / f"{n}.wav")) as file:
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
        out.append((resample(samples, rate), times))
    return out


# -- flite ----------------------------------------------------------------------------------------


class _FliteWave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


def flite(voice: str, texts: list[str], folder: Path) -> list[tuple[Samples, Times]]:
    """Speak with a flite voice; the Token relation of its utterance gives the times."""
    flags = ctypes.RTLD_GLOBAL
    lib = ctypes.CDLL("libflite.so.1", flags)
    for name in ("libflite_cmulex.so.1", "libflite_usenglish.so.1"):
        ctypes.CDLL(name, flags)
    voice_lib = ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1", flags)
    lib.flite_init()
    register = getattr(voice_lib, f"register_cmu_us_{voice}")
    register.restype = ctypes.c_void_p
    pointer = ctypes.c_void_p
    for name in ("flite_synth_text", "utt_relation", "relation_head", "item_next"):
        getattr(lib, name).restype = pointer
    for name in ("utt_wave",):
        getattr(lib, name).restype = ctypes.POINTER(_FliteWave)
    lib.flite_ffeature_float.restype = ctypes.c_float
    lib.flite_ffeature_string.restype = ctypes.c_char_p
    speaker = pointer(register(None))
    out: list[tuple[Samples, Times]] = []
    for text in texts:
        utt = pointer(lib.flite_synth_text(text.encode(), speaker))
        item = lib.relation_head(pointer(lib.utt_relation(utt, b"Token")))
        times: Times = []
        while item:
            last = b"R:Token.daughtern.R:SylStructure.daughtern.daughtern.R:Segment.end"
            first = b"R:Token.daughter1.R:SylStructure.daughter1.daughter1.R:Segment.p.end"
            start = 1000 * lib.flite_ffeature_float(pointer(item), first)
            end = 1000 * lib.flite_ffeature_float(pointer(item), last)
            times.append((start, end))
            item = lib.item_next(pointer(item))
        made = lib.utt_wave(utt).contents
        samples = np.ctypeslib.as_array(made.samples, (made.num_samples,)).astype(np.float64)
        out.append((resample(samples, made.sample_rate), times))
        lib.delete_utterance(utt)
    return out


# -- espeak-ng ------------------------------------------------------------------------------------


class _EspeakEvent(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    ]


_ESPEAK_WORD, _ESPEAK_END, _ESPEAK_PHONEME = 1, 5, 7


def espeak(voice: str, texts: list[str], folder: Path) -> list[tuple[Samples, Times]]:
    """Speak with an espeak-ng voice; word and phoneme events give the times.

    Each spoken word is sent as text of its own place, so a word event names it by its offset.
    """
    lib = ctypes.CDLL("libespeak-ng.so.1")
    rate = lib.espeak_Initialize(2, 0, None, 1)
    chunks: list[bytes] = []
    events: list[tuple[int, int, int, bytes]] = []
    callback_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
    )

    def on_audio(samples: object, count: int, event: object) -> int:
        if samples:
            chunks.append(ctypes.string_at(samples, count * 2))  # type: ignore[arg-type]
        i = 0
        while event[i].type:  # type: ignore[index]
            e = event[i]  # type: ignore[index]
            events.append((e.type, e.text_position, e.sample, bytes(e.string)))
            i += 1
        return 0

    keep = callback_type(on_audio)
    lib.espeak_SetSynthCallback(keep)
    if lib.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice}")
    out: list[tuple[Samples, Times]] = []
    for text in texts:
        chunks.clear()
        events.clear()
        data = text.encode() + b"\0"
        lib.espeak_Synth(data, len(data), 0, 1, 0, 1, None, None)
        samples = np.frombuffer(b"".join(chunks), "<i2").astype(np.float64)
        out.append((resample(samples, rate), _espeak_times(text, events, len(samples), rate)))
    return out


def _espeak_times(
    text: str, events: list[tuple[int, int, int, bytes]], n_samples: int, rate: int
) -> Times:
    """Word times from events: from a word's own event to the next word's, or to a pause before."""
    ends = [m.end() for m in re.finditer(r"\S+", text)]
    spans: list[list[float]] = [[-1.0, -1.0] for _ in ends]
    word = -1
    for kind, position, sample, name in [*events, (_ESPEAK_PHONEME, 0, n_samples, b"_")]:
        now_ms = 1000 * sample / rate
        pause = kind == _ESPEAK_PHONEME and name.rstrip(b"\0") in (b"_", b"_:")
        if word >= 0 and spans[word][1] < 0 and (pause or kind == _ESPEAK_WORD):
            spans[word][1] = now_ms
        if kind == _ESPEAK_WORD:
            # Positions count from 1, and now and then point at the space before the word.
            at = next((i for i, end in enumerate(ends) if end > position - 1), len(ends) - 1)
            if at < word:
                continue  # the clause is over: an event names its first word once more
            word = at
            if spans[word][0] < 0:
                spans[word][0] = now_ms
            spans[word][1] = -1.0  # a word of several parts ends with the last
    return _shared(spans, [len(w) for w in text.split()])


def _shared(spans: list[list[float]], letters: list[int]) -> Times:
    """espeak-ng gives some pairs ("u betaalt") one event: share its time by letters."""
    times: Times = []
    first = 0
    while first < len(spans):
        end = first + 1
        while end < len(spans) and spans[end][0] < 0:
            end += 1
        at_ms, until_ms = spans[first]
        each = (until_ms - at_ms) / sum(letters[first:end])
        for count in letters[first:end]:
            times.append((at_ms, at_ms + each * count))
            at_ms = times[-1][1]
        first = end
    return times


# -- sound ----------------------------------------------------------------------------------------


def resample(samples: Samples, rate: int) -> Samples:
    """To 8 kHz through the spectrum: exact, and quick enough for a few seconds."""
    if rate == RATE_HZ:
        return samples
    n = round(len(samples) * RATE_HZ / rate)
    spectrum = np.fft.rfft(samples)[: n // 2 + 1]
    resampled: Samples = np.fft.irfft(spectrum, n) * (n / len(samples))
    return resampled


def warp(samples: Samples, times: Times, rng: np.random.Generator) -> tuple[Samples, Times]:
    """Stretch and squeeze by random factors; times follow."""
    window, hop, reach = 240, 120, 60
    shape = np.hanning(window + 1)[:window]
    out = np.zeros(int(len(samples) * 1.6) + window)
    norm = np.zeros_like(out)
    source_at: list[int] = []
    place, written, factor, until = 0.0, 0, 1.0, 0
    last = 0
    while place + window + reach < len(samples):
        if written >= until:
            factor = rng.uniform(0.72, 1.4)
            until = written + int(rng.uniform(0.25, 0.6) * RATE_HZ)
        wanted = int(place)
        if source_at:
            natural = samples[last + hop : last + hop + window]
            low = max(wanted - reach, 0)
            around = samples[low : wanted + reach + window]
            if len(natural) == window:
                fit = np.correlate(around, natural, "valid")
                wanted = low + int(fit.argmax())
        out[written : written + window] += samples[wanted : wanted + window] * shape
        norm[written : written + window] += shape
        source_at.append(wanted)
        last = wanted
        written += hop
        place += hop / factor
    length = written + window - hop
    made = out[:length] / np.maximum(norm[:length], 0.1)
    centre_in = np.array(source_at, float) + window / 2
    centre_out = np.arange(len(source_at)) * hop + window / 2
    centre_in = np.maximum.accumulate(centre_in)

    def moved(ms: float) -> float:
        return float(np.interp(ms * 8, centre_in, centre_out) / 8)

    return made, [(moved(a), moved(b)) for a, b in times]


def to_ulaw(samples: Samples) -> bytes:
    """Mono µ-law of 16-bit sample values (ITU-T G.711)."""
    x = np.clip(np.round(samples), -32635, 32635).astype(np.int32)
    sign = np.where(x < 0, 0x80, 0)
    magnitude = np.abs(x) + 0x84
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return bytes((~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8))


Synthesizer = Callable[[str, list[str], Path], list[tuple[Samples, Times]]]
SETS: dict[str, tuple[Synthesizer, str, str]] = {
    "festival_slt": (festival, "cmu_us_slt_arctic_hts", "en"),
    "festival_kal_w": (festival, "kal_diphone", "en"),
    "festival_ked_w": (festival, "ked_diphone", "en"),
    "flite_slt_w": (flite, "slt", "en"),
    "flite_awb": (flite, "awb", "en"),
    "flite_rms_w": (flite, "rms", "en"),
    "espeak_en_w": (espeak, "en+f4", "en"),
    "espeak_es_w": (espeak, "es+f2", "es"),
    "espeak_de_w": (espeak, "de+m4", "de"),
    "espeak_fr_w": (espeak, "fr+f3", "fr"),
    "espeak_it_w": (espeak, "it+m2", "it"),
    "espeak_pt_w": (espeak, "pt+f2", "pt"),
    "espeak_nl_w": (espeak, "nl+m3", "nl"),
    "festival_it": (festival, "lp_diphone", "it"),
    "festival_it_w": (festival, "pc_diphone", "it"),
}


def make_set(name: str, folder: Path) -> None:
    """Write one set."""
    synthesizer, voice, language = SETS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    pairs = [shown_and_said(text) for text in TEXTS[language]]
    texts = [" ".join(said) for _, said in pairs]
    with tempfile.TemporaryDirectory() as temporary:
        made = synthesizer(voice, texts, Path(temporary))
    folder.mkdir(parents=True, exist_ok=True)
    for n, ((shown, said), (samples, times)) in enumerate(zip(pairs, made, strict=True)):
        try:
            times = merge(times, said)
            if any(end - start < 20 for start, end in times):
                raise ValueError("a word without time of its own")
        except ValueError as error:
            print(f"{name} {n}: left out: {error}", file=sys.stderr)
            continue
        if name.endswith("_w"):
            samples, times = warp(samples, times, rng)
        samples = samples * (9000 / np.abs(samples).max())
        samples = samples + rng.normal(0, 10.0, len(samples))
        (folder / f"{n:03d}.ulaw").write_bytes(to_ulaw(samples))
        facts = {
            "id": f"{n:03d}",
            "set": name,
            "ref": "tts",
            "language": language,
            "dur_ms": len(samples) / 8,
            "words": shown,
            "times": [[round(a, 1), round(b, 1)] for a, b in times],
        }
        (folder / f"{n:03d}.json").write_text(json.dumps(facts, ensure_ascii=False))


def main() -> None:
    """Write the sets asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    args = parser.parse_args()
    for name in args.sets.split(","):
        make_set(name, args.out / name)
        print(f"{name}: {len(list((args.out / name).glob('*.json')))} pieces")


if __name__ == "__main__":
    main()
