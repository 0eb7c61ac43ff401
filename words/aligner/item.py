"""Aligns one item of agent speech with its text while both arrive.

Audio and text may come in any pieces and in any order. Work is done as soon as it can be: a frame is
searched once the text that may sound there is known, which for a speech model is as soon as the audio
comes, for its text runs ahead. So when the caller barges in little is left to do, and it is as little
for a long item as for a short one.

The end is free. While generation is not complete, the audio may stop in any word; the path that ends
best, with the length of its last phone taken into account, says in which. Words after it have no
audio yet, and the word it stops in ends when its remaining phones would have been said.

The average that is taken off the cepstra is not known at the start of an item, so the search begins
when there is a second and a half of audio, and keeps the average of what it had then. (Starting over
with a better one later measured no better.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from words.aligner.durations import USUAL_MS, duration_table, survival_table
from words.aligner.features import (
    CEPSTRA,
    CONTEXT_FRAMES,
    FRAME_CENTRE_MS,
    FRAME_MS,
    CepstrumStream,
    differences,
)
from words.aligner.model import STATES
from words.aligner.search import Record, Search
from words.aligner.senones import senone_scorer
from words.aligner.textgraph import BETWEEN, SILENCE, TextGraph
from words.energy import ULAW_TO_LINEAR
from words.timing import Method, WordTime, WordTimes
from words.tokenize import TextJoiner, Token

VERSION = "phone-hmm/1"

_START_FRAMES = 150
"""Audio that is there before the search begins, unless the item ends earlier; see above."""

_BLOCK_FRAMES = 100
"""Searched at a time: fewer and the model is fetched into the cache too often, more and too much is
left for the last answer."""
_WORDS_AHEAD = 3
"""Known words that must follow the best path before it is led on: the path must have somewhere to
go, and the next word may be short."""

_INCOMPLETE_PENALTY = 60.0
"""A path to the end of a complete text may be this much worse than one that stops elsewhere."""

_END_WINDOW = 40.0
"""Paths this far behind the best one are considered as ends."""

_SILENT_DB = 25.0
"""An item whose loudest 10 ms is below this level says nothing: µ-law has one or two steps there."""

_FIT_OF_OTHER_TEXT, _FIT_OF_OWN_TEXT = 0.0, 0.8
"""How much better than garbage a frame scores, on average: with a text that has nothing to do with
the audio, and with its own (measured on nineteen sets of voices; docs/words.md)."""

_BEST_CONFIDENCE = 0.95
_MIN_CONFIDENCE = 0.05

_MIN_SOFT_PAUSE_FRAMES = 8
_AUDIBLE_ABOVE_PAUSE = 12.0
"""Of the first cepstrum, which is five times the mean log power of the filters: 10 dB."""

_MAX_FADE_FRAMES = 20
_MAX_ONSET_FRAMES = 8

_RATE_EVIDENCE_PHONES = 20.0
"""The usual rate of speech is worth this many phones of evidence."""


class ItemAligner:
    """Word times of one item; not thread-safe."""

    def __init__(self, language: str = "en", *, rate_hz: int = 8000) -> None:
        """Start an item.

        Args:
            language: BCP 47 tag of what is spoken.
            rate_hz: Rate of the samples given to :meth:`add_samples`; 8000 for µ-law.
        """
        self._language = language.lower().partition("-")[0].partition("_")[0]
        self._stream = CepstrumStream(rate_hz)
        self._rate_hz = rate_hz
        self._samples = 0
        self._loudest_db = 0.0
        self._garbage_score = 0.0
        self._cepstra = np.empty((256, CEPSTRA), np.float32)
        self._n_cepstra = 0
        self._mean: npt.NDArray[np.float32] | None = None
        self._joiner = TextJoiner()
        self._tokens: list[Token] = []
        self._text = TextGraph(self._language)
        self._search: Search | None = None

    @property
    def audio_ms(self) -> int:
        """Length of the audio so far, rounded down."""
        return self._samples * 1000 // self._rate_hz

    def add_audio(self, ulaw: bytes) -> None:
        """Add mono µ-law at 8 kHz."""
        self._add_values(ULAW_TO_LINEAR.take(np.frombuffer(ulaw, np.uint8)))

    def add_samples(self, samples: npt.NDArray[np.int16]) -> None:
        """Add 16-bit mono samples at the rate given at the start."""
        self._add_values(samples.astype(np.float32))

    def add_text(self, delta: str) -> None:
        """Add a transcript delta."""
        self._add_words(self._joiner.add(delta))

    def add_words(self, words: Sequence[str]) -> None:
        """Add words that were told apart elsewhere, as if joined by single spaces.

        Do not mix with :meth:`add_text`: a word given here stays one word whatever it contains.
        """
        tokens: list[Token] = []
        place = self._tokens[-1].char_end + 1 if self._tokens else 0
        for word in words:
            tokens.append(Token(word, place, place + len(word)))
            place += len(word) + 1
        self._add_words(tokens)

    @property
    def searched_ms(self) -> int:
        """How much of the audio was searched."""
        return self._frame * FRAME_MS

    def work(self, max_frames: int = 1 << 30) -> bool:
        """Search audio for which enough text is known; whether there is more to do right now.

        Args:
            max_frames: Return after about so many frames, for the sake of other items.
        """
        if self._n_frames < _START_FRAMES:
            return False
        self._start_search()
        done = 0
        while self._n_frames - CONTEXT_FRAMES - self._frame >= _BLOCK_FRAMES:
            if self._words_reached() + _WORDS_AHEAD > self._text.n_words:
                return False
            if done >= max_frames:
                return True
            self._advance(_BLOCK_FRAMES)
            done += _BLOCK_FRAMES
        return False

    def estimate(self) -> WordTimes:
        """Word times from what was searched so far; words after them go on at the rate of speech."""
        return self._word_times(self._unsettled(), complete=False)

    def finish(self, complete: bool = True) -> WordTimes:
        """Word times from all audio and text; nothing may be added afterwards.

        Args:
            complete: Generation came to its end, so all text was spoken. False: it was cut off,
                and the text may run past the audio.
        """
        self._add_words(self._joiner.unsettled())
        self._joiner = _Finished(self._joiner.text)
        self._start_search()
        if self._text.n_words and self._n_frames:
            self._advance(self._n_frames - self._frame)
        return self._word_times((), complete=complete)

    # -- sound --------------------------------------------------------------------------------

    def _add_values(self, values: npt.NDArray[np.float32]) -> None:
        if len(values) == 0:
            return
        self._samples += len(values)
        power = float(np.dot(values, values)) / len(values)
        self._loudest_db = max(self._loudest_db, 10.0 * math.log10(power + 1.0))
        self._stream.add_samples(values)
        # Not for each delta: that costs more than the frames that it completes.
        if self._stream.n_waiting >= _BLOCK_FRAMES:
            self._take_cepstra()

    def _take_cepstra(self) -> None:
        cepstra = self._stream.take()
        needed = self._n_cepstra + len(cepstra)
        while needed > len(self._cepstra):
            self._cepstra = np.concatenate([self._cepstra, np.empty_like(self._cepstra)])
        self._cepstra[self._n_cepstra : needed] = cepstra
        self._n_cepstra = needed

    @property
    def _n_frames(self) -> int:
        """Frames that the audio so far completes."""
        return self._n_cepstra + self._stream.n_waiting

    @property
    def _frame(self) -> int:
        return self._search.frame if self._search else 0

    def _start_search(self) -> None:
        """Begin to search, once."""
        if self._search is None:
            self._take_cepstra()
            if self._n_cepstra:
                self._mean = self._cepstra[: self._n_cepstra].mean(axis=0)
            self._search = Search(self._text.graph, duration_table())

    def _advance(self, n: int) -> None:
        """Search the next n frames."""
        assert self._search is not None and self._mean is not None
        self._take_cepstra()
        first = self._search.frame
        low, high = max(first - CONTEXT_FRAMES, 0), first + n + CONTEXT_FRAMES
        features = differences(self._cepstra[low : min(high, self._n_cepstra)] - self._mean)
        scores = senone_scorer().scores(features[first - low : first - low + n])
        self._garbage_score += float(scores[:, -1].sum())
        self._search.advance(scores)

    # -- text ---------------------------------------------------------------------------------

    def _add_words(self, tokens: Sequence[Token]) -> None:
        if not tokens:
            return
        for token in tokens:
            self._text.add_word(token.text)
            self._tokens.append(token)
        if self._search is not None:
            self._search.graph_grew()

    def _unsettled(self) -> tuple[Token, ...]:
        return self._joiner.unsettled()

    def _words_reached(self) -> int:
        """Number of words that the best path has come to."""
        if self._search is None or self._search.frame == 0:
            return 0
        best, _ = divmod(int(self._search.ends().argmax()), STATES)
        # A pause belongs to no word: the phones before it do.
        while best >= 0 and self._text.word_of[best] == BETWEEN:
            best -= 1
        return self._text.word_of[best] + 1 if best >= 0 else 0

    # -- answer -------------------------------------------------------------------------------

    def _word_times(self, unsettled: Sequence[Token], *, complete: bool) -> WordTimes:
        tokens = [*self._tokens, *unsettled]
        path, last = self._best_path(complete=complete)
        spans = self._spans(path)
        rate = self._rate_of(path)
        times = self._laid_out(tokens, spans, path, last, rate)
        words = tuple(
            WordTime(token.text, token.char_start, token.char_end, start, end)
            for token, (start, end) in zip(tokens, times, strict=True)
        )
        return WordTimes(Method.ALIGNED, VERSION, self._confidence(path), self.audio_ms, words)

    def _best_path(self, *, complete: bool) -> tuple[list[Record], int | None]:
        """Phones of the path chosen, and its last state if it stopped inside a phone."""
        search = self._search
        if search is None or search.frame == 0 or self._loudest_db < _SILENT_DB:
            return [], None
        scores = search.ends()
        best = float(scores.max())
        if complete and search.junction_score(self._text.ready) > best - _INCOMPLETE_PENALTY:
            return search.path_to_junction(self._text.ready), None
        phones, states = np.nonzero(scores > best - _END_WINDOW)
        survival = survival_table()
        lengths = search.frame - search.entered()[phones, states]
        rows = search.graph.duration_rows[phones]
        odds = survival[rows, np.minimum(lengths, survival.shape[1] - 1)]
        chosen = int((scores[phones, states] + odds).argmax())
        phone, state = int(phones[chosen]), int(states[chosen])
        return search.path_to_state(phone, state), state

    def _spans(self, path: Sequence[Record]) -> dict[int, tuple[int, int]]:
        """Frames of each word on the path."""
        spans: dict[int, tuple[int, int]] = {}
        for record in self._with_soft_edges(path):
            word = self._text.word_of[record.phone]
            if word == BETWEEN:
                continue
            if word in spans:
                spans[word] = (spans[word][0], record.end)
            elif self._text.phones[record.phone].name != SILENCE:
                spans[word] = (record.start, record.end)
        return spans

    def _with_soft_edges(self, path: Sequence[Record]) -> list[Record]:
        """Give a pause's edges back to the words beside it as far as they are audible.

        A sound that dies away, and the hiss of an s that lies above 4 kHz, look like silence to the
        model long before they are.
        """
        edited = list(path)
        for k, record in enumerate(path):
            phone = self._text.phones[record.phone]
            if phone.name != SILENCE or record.end - record.start < _MIN_SOFT_PAUSE_FRAMES:
                continue
            levels = self._cepstra[record.start : record.end, 0]
            quiet = np.sort(levels)[len(levels) // 4]
            audible = levels > quiet + _AUDIBLE_ABOVE_PAUSE
            if k and self._text.word_of[path[k - 1].phone] != BETWEEN:
                after = _first_false(audible[:_MAX_FADE_FRAMES])
                edited[k - 1] = edited[k - 1]._replace(end=record.start + after)
            if k + 1 < len(path) and self._text.word_of[path[k + 1].phone] != BETWEEN:
                before = _first_false(audible[: -_MAX_ONSET_FRAMES - 1 : -1])
                edited[k + 1] = edited[k + 1]._replace(start=record.end - before)
        return edited

    def _rate_of(self, path: Sequence[Record]) -> float:
        """Length of the path's phones relative to usual."""
        total, n = 0.0, 0
        for record in path:
            usual_ms = USUAL_MS.get(self._text.phones[record.phone].name)
            if usual_ms is not None:
                total += math.log((record.end - record.start) * FRAME_MS / usual_ms)
                n += 1
        return math.exp(total / (n + _RATE_EVIDENCE_PHONES))

    def _laid_out(
        self,
        tokens: Sequence[Token],
        spans: dict[int, tuple[int, int]],
        path: Sequence[Record],
        last_state: int | None,
        rate: float,
    ) -> list[tuple[int, int]]:
        """Start and end of every word: measured, squeezed in, or yet to come."""
        frame = self._frame
        last_word = max(spans, default=-1)
        times: list[tuple[int, int]] = []
        at_ms = 0
        for number in range(last_word + 1):
            if number in spans:
                start, end = (f * FRAME_MS + FRAME_CENTRE_MS for f in spans[number])
                at_ms = max(end, at_ms)
                times.append((max(start, times[-1][1]) if times else start, at_ms))
            else:
                times.append((at_ms, at_ms))
        if path and last_state is not None and self._text.word_of[path[-1].phone] >= 0:
            rest_ms = self._rest_ms(path[-1], last_state, rate)
            at_ms = max(at_ms, round(frame * FRAME_MS + FRAME_CENTRE_MS + rest_ms))
            times[-1] = (times[-1][0], at_ms)
        # Frames that were searched hold no further word; those that were not may.
        silent = self._loudest_db < _SILENT_DB
        searched_all = silent or frame >= self._n_frames
        at_ms = max(at_ms, self.audio_ms if searched_all else frame * FRAME_MS)
        for number in range(last_word + 1, len(tokens)):
            length_ms = self._usual_ms(number, tokens[number]) * rate
            times.append((at_ms, at_ms + round(length_ms)))
            at_ms = times[-1][1]
        return times

    def _usual_ms(self, number: int, token: Token) -> float:
        if number < self._text.n_words:
            return self._text.usual_ms[number]
        return 65.0 * len(token.text)  # not settled, so not in the graph: by its letters

    def _rest_ms(self, record: Record, state: int, rate: float) -> float:
        """Time until the end of a word that the audio stopped in."""
        phone = self._text.phones[record.phone]
        usual_ms = USUAL_MS.get(phone.name, 0) * rate
        share_left = (0.5, 0.35, 0.15)[state]
        length_ms = (self._frame - record.start) * FRAME_MS
        own_ms = max(usual_ms - length_ms, share_left * usual_ms)
        return own_ms + phone.after_ms * rate

    def _confidence(self, path: Sequence[Record]) -> float:
        """How well text and audio fit each other, from 0 to 1."""
        if self._search is None or not path:
            return 0.0
        fit = (self._search.best - self._garbage_score) / self._search.frame
        share = (fit - _FIT_OF_OTHER_TEXT) / (_FIT_OF_OWN_TEXT - _FIT_OF_OTHER_TEXT)
        return round(min(max(share, _MIN_CONFIDENCE), 1.0) * _BEST_CONFIDENCE, 3)


def _first_false(flags: npt.NDArray[np.bool_]) -> int:
    """How many flags at the start are true."""
    return len(flags) if flags.all() else int(flags.argmin())


class _Finished(TextJoiner):
    """Stands in for the joiner of a finished item: its text is in the graph, all of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._parts = [text]
