"""The scripted caller: acts on what was really played."""

from __future__ import annotations

import base64

import pytest

from simulators.realtime.recognition import recognise
from simulators.realtime.vad import SpeechStarted, SpeechStopped, Vad
from simulators.speech import spoken
from simulators.speech.noise import echo
from simulators.twilio.caller import Caller
from simulators.twilio.carrier import Carrier
from simulators.twilio.script import (
    BAKERY_QUOTE,
    AgentPlayed,
    AgentSilent,
    AgentWord,
    CallerScript,
    Drop,
    Echo,
    Elapsed,
    HangUp,
    Noise,
    OmitSilence,
    Press,
    Say,
    ShiftTimestamps,
    Step,
)
from tests.simulators.twilio.drive import SID, clear, media_of


class Line:
    """A caller on a carrier, in virtual time."""

    def __init__(self, script: CallerScript) -> None:
        self.caller = Caller(script)
        self.carrier = Carrier(stream_sid=SID, first_timestamp_ms=0)
        self.now = 0
        self.ended_by: object = None

    def run(self, ms: int) -> None:
        until = self.now + ms
        while self.now < until and self.ended_by is None:
            self.now += 20
            self.carrier.advance(self.now)
            self.ended_by = self.caller.listen(self.carrier, self.now, call_ms=self.now)

    def agent_says(self, ulaw: bytes) -> None:
        self.carrier.receive(media_of(ulaw), self.now)

    @property
    def said(self) -> list[tuple[str, int]]:
        return [(line.text, line.start_ms) for line in self.carrier.truth.caller_lines]


def test_waits_for_the_agent_to_speak_and_fall_silent() -> None:
    line = Line(CallerScript((Step(Say("Yes."), AgentSilent(700)),)))
    line.run(3_000)
    assert line.said == []
    greeting = spoken("Yes, of course.")
    line.agent_says(greeting.ulaw)
    line.run(greeting.duration_ms + 640)
    assert line.said == []
    line.run(200)
    (text, start_ms) = line.said[0]
    silent_from = line.carrier.truth.played[-1].end_ms
    assert text == "Yes." and silent_from + 700 <= start_ms <= silent_from + 760


def test_cuts_in_where_the_word_has_been_played_not_where_it_was_sent() -> None:
    quote = spoken(BAKERY_QUOTE)
    script = CallerScript((Step(Say("Stop."), AgentWord(BAKERY_QUOTE, "credit?", plus_ms=80)),))
    line = Line(script)
    line.run(500)
    line.agent_says(spoken("Yes, of course.").ulaw + quote.ulaw)
    line.run(10_000)
    word_ms = line.carrier.truth.played[0].start_ms + spoken("Yes, of course.").duration_ms
    word_ms += quote.word_end_ms("credit?")
    assert word_ms + 80 <= line.said[0][1] <= word_ms + 120


def test_word_that_was_cleared_before_it_was_played_is_no_occasion() -> None:
    line = Line(CallerScript((Step(Say("Stop."), AgentWord(BAKERY_QUOTE, "credit?")),)))
    line.agent_says(spoken(BAKERY_QUOTE).ulaw)
    line.run(1_000)
    line.carrier.receive(clear(), line.now)
    line.run(15_000)
    assert line.said == []


def test_counts_what_was_played_since_its_last_line() -> None:
    script = CallerScript(
        (
            Step(Say("Yes."), AgentPlayed(500)),
            Step(Say("Stop."), AgentPlayed(500)),
        )
    )
    line = Line(script)
    line.agent_says(spoken(BAKERY_QUOTE).ulaw)
    line.run(6_000)
    played_from = line.carrier.truth.played[0].start_ms
    first, second = (start for _, start in line.said)
    assert played_from + 500 <= first <= played_from + 540
    first_end = first + spoken("Yes.").duration_ms
    assert second >= first_end - 100


def test_acts_all_the_same_when_the_occasion_never_comes_and_says_so() -> None:
    line = Line(CallerScript((Step(Say("Yes."), AgentSilent(700), timeout_ms=2_000),)))
    line.run(4_000)
    assert line.said[0][0] == "Yes."
    assert line.caller.taken[0].timed_out


def test_keys_gaps_and_jumps() -> None:
    script = CallerScript(
        (
            Step(Press("12"), Elapsed(100)),
            Step(ShiftTimestamps(500), Elapsed(100)),
            Step(OmitSilence(), Elapsed(100)),
            Step(Drop(), Elapsed(100)),
        )
    )
    line = Line(script)
    line.run(1_000)
    sent = [o.message for o in line.carrier.take()]
    assert [m["dtmf"]["digit"] for m in sent if m["event"] == "dtmf"] == ["1", "2"]
    assert line.ended_by == Drop()
    assert line.carrier.truth.frames_omitted > 0


def test_hangs_up_after_its_script_and_at_the_latest_after_its_patience() -> None:
    line = Line(CallerScript(()))
    line.agent_says(spoken("Yes, of course.").ulaw)
    line.run(5_000)
    assert line.ended_by == HangUp()
    patient = Line(CallerScript((Step(Say("Yes."), Elapsed(60_000)),), max_call_ms=1_000))
    patient.run(5_000)
    assert patient.ended_by == HangUp() and patient.now == 1_000


@pytest.mark.parametrize("action", [Noise(300), Echo(300)])
def test_sound_without_a_word_is_no_line_but_taken_for_a_voice(action: Noise | Echo) -> None:
    line = Line(CallerScript((Step(action, AgentPlayed(1_500)),)))
    line.agent_says(spoken(BAKERY_QUOTE).ulaw)
    line.run(4_000)
    assert line.said == []
    (noise,) = line.carrier.truth.noises
    assert 1_500 <= noise.start_ms <= 1_560
    assert noise.end_ms - noise.start_ms == 300
    frames = [m.message for m in line.carrier.take() if m.message["event"] == "media"]
    sent = b"".join(base64.b64decode(m["media"]["payload"]) for m in frames)
    vad = Vad()
    vad.configure({"type": "server_vad", "silence_duration_ms": 500})
    found = vad.feed(sent, listen=True)
    assert [type(event) for event in found] == [SpeechStarted, SpeechStopped]
    assert recognise(sent) == ""


def test_echo_is_what_the_agent_has_just_said() -> None:
    line = Line(CallerScript((Step(Echo(300), AgentPlayed(1_500)),)))
    quote = spoken(BAKERY_QUOTE).ulaw
    line.agent_says(quote)
    line.run(2_000)
    sent = b"".join(
        base64.b64decode(o.message["media"]["payload"])
        for o in line.carrier.take()
        if o.message["event"] == "media"
    )
    at_ms = line.caller.taken[0].at_ms - line.carrier.truth.played[0].start_ms
    assert echo(quote[8 * (at_ms - 300) : 8 * at_ms]).ulaw in sent
