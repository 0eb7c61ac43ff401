"""Where nobody spoke though the agent owed an answer, by the carrier's truth."""

from __future__ import annotations

from bench.dead_air import (
    ANSWER,
    GREETING,
    REST,
    RESULT,
    Script,
    Silence,
    Told,
    compare,
    lost_words,
    silences,
)
from simulators.truth import CallerFrames, HeardCall, HeardItem
from simulators.twilio import CallTruth
from simulators.twilio.stream_truth import CallerLine, Flush, StreamTruth, Stretch

CHECK, STILL, HOLD, SORRY = "I will check.", "Still at it.", b"\x11" * 800, b"\x22" * 800
SCRIPT = Script(frozenset({CHECK}), frozenset({STILL}), {HOLD: True, SORRY: False})


class Line:
    """A call of one stream, put together sound by sound."""

    def __init__(self) -> None:
        self.stream = StreamTruth("MZ1", ended_ms=60_000)
        self.items: list[HeardItem] = []

    def _play(self, start_ms: int, end_ms: int, audio: bytes) -> None:
        at = len(self.stream.audio)
        self.stream.audio += audio
        self.stream.played.append(Stretch(at, at + 8 * (end_ms - start_ms), start_ms))

    def agent(self, start_ms: int, end_ms: int, text: str, unheard: str = "") -> None:
        heard = [(word, 0, 1) for word in text.split()]
        missed = [(word, 8, 9) for word in unheard.split()]
        self._play(start_ms, end_ms, b"\x33" * (8 * (end_ms - start_ms)))
        self.items.append(
            HeardItem(
                "s", f"i{len(self.items)}", text if not unheard else f"{text} {unheard}",
                (*heard, *missed), 80, (), ((0, 8),), start_ms, end_ms, 0,
            )
        )  # fmt: skip

    def notice(self, start_ms: int, audio: bytes) -> None:
        self._play(start_ms, start_ms + len(audio) // 8, audio)

    def caller(self, start_ms: int, end_ms: int, *, noise: bool = False) -> None:
        lines = self.stream.noises if noise else self.stream.caller_lines
        lines.append(CallerLine("", "", start_ms, start_ms, end_ms))

    def clear(self, at_ms: int) -> None:
        self.stream.flushes.append(Flush(at_ms, 0, 1, ()))

    @property
    def call(self) -> CallTruth:
        return CallTruth("CA1", "AC1", "", "", 1, streams=[self.stream], ending="hung_up")

    @property
    def heard(self) -> HeardCall:
        frames = CallerFrames(0, 0, (), (), (), 0, 0)
        return HeardCall("CA1", ("s",), tuple(self.items), frames, 0)

    def judged(self) -> list[tuple[int, int, str]]:
        return [(s.start_ms, s.end_ms, s.owed) for s in silences(self.call, self.heard, SCRIPT)]


def test_a_greeting_and_each_line_of_the_callers_are_owed_an_answer() -> None:
    line = Line()
    line.agent(400, 3_000, "Hello.")
    line.caller(4_000, 5_000)
    line.agent(6_200, 8_000, "Yes.")
    assert line.judged() == [(0, 400, GREETING), (5_000, 6_200, ANSWER)]


def test_who_is_never_answered_waits_until_the_end() -> None:
    line = Line()
    line.agent(0, 3_000, "Hello.")
    line.caller(4_000, 5_000)
    [silence] = silences(line.call, line.heard, SCRIPT)
    assert silence == Silence(5_000, 60_000, ANSWER, ended_call=True)


def test_a_result_is_owed_after_it_was_announced_and_a_word_that_bridges_changes_nothing() -> None:
    line = Line()
    line.agent(0, 3_000, CHECK)
    line.agent(7_000, 8_000, STILL)
    line.notice(14_000, HOLD)
    line.agent(17_000, 19_000, "It is $5.")
    ends = [3_000, 8_000, 14_100]
    assert line.judged() == list(zip(ends, [7_000, 14_000, 17_000], [RESULT] * 3, strict=True))


def test_after_a_sentence_that_gives_up_nothing_is_owed() -> None:
    line = Line()
    line.notice(9_000, SORRY)
    assert line.judged() == [(0, 9_000, GREETING)]


def test_what_noise_cut_off_is_owed_and_what_the_caller_cut_off_is_not() -> None:
    for noise in (True, False):
        line = Line()
        line.agent(0, 1_500, "It leaves", "at noon today.")
        line.caller(1_400, 1_700, noise=noise)
        line.clear(1_500)
        line.agent(3_500, 6_000, "leaves at noon")
        assert line.judged() == [(1_700, 3_500, REST if noise else ANSWER)]
        assert lost_words(line.call, line.heard) == ((3, 1) if noise else (0, 0))


def test_a_line_that_runs_dry_is_owed_its_rest() -> None:
    line = Line()
    line.agent(0, 1_000, "It leaves at noon.")
    line._play(3_000, 4_000, b"\x33" * 8_000)
    line.items[0] = HeardItem("s", "i0", "It leaves at noon.", (), 80, (), ((0, 8),), 0, 4_000, 0)
    assert line.judged() == [(1_000, 3_000, REST)]


def test_a_transcript_is_held_against_the_truth() -> None:
    truth = [
        Silence(0, 900, GREETING),
        Silence(5_000, 9_000, ANSWER),
        Silence(20_000, 23_000, REST),
    ]
    told = [Told(5_050, 7_000, 1_950, "model"), Told(7_000, 9_000, 2_000, "refused"),
            Told(30_000, 33_000, 3_000, "tool"), Told(None, None, 2_500, "tool")]  # fmt: skip
    found = compare(truth, told, long_ms=2_000, tolerance_ms=400)
    assert found.errors_ms == [-50]
    assert found.reasons == [(truth[1], "refused")]
    assert found.missed == [truth[2]]
    assert found.invented == told[2:]
