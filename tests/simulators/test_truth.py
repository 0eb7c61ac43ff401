"""The join of both truths, on calls made by hand in virtual time."""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st

from simulators import frame_tag
from simulators.realtime.session_truth import AgentItem, SessionTruth
from simulators.speech import corpus, spoken
from simulators.truth import HeardCall, join
from simulators.twilio.call_truth import CallTruth
from simulators.twilio.carrier import Carrier
from tests.simulators.twilio.drive import SID, clear, media_of

TAG = 77
FIRST = spoken("Yes, of course.")
SECOND = spoken("Would you like it sliced, toasted, or just as it is?")


class HandMade:
    """One call and one session; the test is the bridge."""

    def __init__(self, tag: int = TAG) -> None:
        self.carrier = Carrier(stream_sid=SID, first_timestamp_ms=0, tag=tag)
        self.call = CallTruth("CA1", "AC1", "", "", tag, streams=[self.carrier.truth])
        self.session = SessionTruth("sess_1")
        self.now = 0

    def generate(self, name: str, text: str, upto: int | None = None, delta: int = 2_000) -> bytes:
        """The model sends a line's audio, or the beginning of it."""
        speech = spoken(text)
        words = [(w.text, w.start_ms, w.end_ms) for w in speech.words]
        item = AgentItem(name, "resp_1", text, words, text=text)
        audio = speech.ulaw[:upto]
        for at in range(0, len(audio), delta):
            piece = audio[at : at + delta]
            self.session.sent_order.append((name, at, at + len(piece)))
            item.audio += piece
        self.session.agent_items.append(item)
        return audio

    def forward(self, audio: bytes, size: int = 4_000) -> None:
        for at in range(0, len(audio), size):
            self.carrier.receive(media_of(audio[at : at + size]), self.now)

    def wait(self, ms: int) -> None:
        self.now += ms
        self.carrier.advance(self.now)

    def pass_frames_on(self) -> None:
        for outgoing in self.carrier.take():
            if outgoing.message["event"] == "media":
                self.session.appended += base64.b64decode(outgoing.message["media"]["payload"])

    def joined(self) -> HeardCall:
        self.pass_frames_on()
        return join([self.call], [self.session])[0]


def test_cut_at_any_ms_gives_the_words_whose_half_was_played() -> None:
    for cut_ms in range(40, SECOND.duration_ms, 97):
        made = HandMade()
        made.wait(5)
        made.forward(made.generate("item_1", SECOND.text))
        made.wait(15 + cut_ms)  # Playing began on the grid, at 20.
        made.carrier.receive(clear(), made.now)
        made.wait(200)
        item = made.joined().items[0]
        assert item.played == ((0, cut_ms * 8),)
        assert (item.start_ms, item.end_ms) == (20, 20 + cut_ms)
        middles = [(w.start_ms + w.end_ms) / 2 for w in SECOND.words]
        assert item.heard == tuple(middle <= cut_ms for middle in middles)
        assert item.heard_text == " ".join(
            w.text for w, middle in zip(SECOND.words, middles, strict=True) if middle <= cut_ms
        )


def test_what_the_bridge_dropped_is_unheard_and_the_next_item_is_found() -> None:
    made = HandMade()
    first = made.generate("item_1", SECOND.text)
    made.forward(first[:8_000])
    made.wait(2_000)  # The rest was dropped by the bridge, the next item comes.
    made.forward(made.generate("item_2", FIRST.text))
    made.wait(5_000)
    heard = made.joined()
    one, two = heard.items
    assert one.reached == one.played == ((0, 8_000),)
    assert two.heard_text == FIRST.text
    assert heard.foreign_bytes == 0


def test_audio_across_two_items_in_one_message_is_told_apart() -> None:
    made = HandMade()
    audio = made.generate("item_1", FIRST.text) + made.generate("item_2", SECOND.text)
    made.forward(audio, size=7_321)
    made.wait(60_000)
    one, two = made.joined().items
    assert one.played == ((0, len(FIRST.ulaw)),)
    assert two.played == ((0, len(SECOND.ulaw)),)


def test_queued_item_that_was_cleared_unplayed_was_not_heard() -> None:
    made = HandMade()
    made.forward(made.generate("item_1", SECOND.text))
    made.forward(made.generate("item_2", FIRST.text))
    made.wait(1_000)
    made.carrier.receive(clear(), made.now)
    two = made.joined().items[1]
    assert two.played == () and two.start_ms is None and two.heard_text == ""
    assert two.reached == ((0, len(FIRST.ulaw)),)


def test_text_without_audio_is_unheard() -> None:
    made = HandMade()
    made.forward(made.generate("item_1", SECOND.text, upto=16_000))
    made.wait(10_000)
    item = made.joined().items[0]
    assert item.played_ms == 2_000
    assert item.unheard_text.endswith("as it is?")
    assert item.heard_text + " " + item.unheard_text == SECOND.text


def test_same_line_twice_is_two_items() -> None:
    made = HandMade()
    made.forward(made.generate("item_1", FIRST.text)[:6_000])
    made.wait(3_000)
    made.forward(made.generate("item_2", FIRST.text))
    made.wait(3_000)
    one, two = made.joined().items
    assert one.played == ((0, 6_000),) and two.played == ((0, len(FIRST.ulaw)),)


def test_audio_the_model_never_sent_is_foreign() -> None:
    made = HandMade()
    made.generate("item_1", FIRST.text)
    made.forward(corpus()["agent-goodbye"].ulaw)
    made.wait(1_000)
    heard = made.joined()
    assert heard.foreign_bytes == len(corpus()["agent-goodbye"].ulaw)
    assert heard.items[0].played == ()


def test_a_quiet_stretch_is_in_all_audio_and_tells_nothing() -> None:
    made = HandMade()
    made.generate("item_1", corpus()["agent-goodbye"].text)
    quiet = b"\xfe\xff" * 40
    made.session.agent_items[0].audio[:80] = quiet
    made.forward(quiet + b"\x20" * 800)
    made.wait(1_000)
    heard = made.joined()
    assert heard.items[0].played == ()
    assert heard.foreign_bytes == 880


def test_lost_repeated_and_swapped_frames_are_told() -> None:
    made = HandMade()
    made.wait(2_010)
    made.pass_frames_on()
    audio = bytes(made.session.appended)
    frames = [audio[at : at + 160] for at in range(0, len(audio), 160)]
    assert made.joined().frames.intact
    del frames[50]
    frames[10], frames[11] = frames[11], frames[10]
    frames.insert(30, frames[30])
    frames.insert(40, b"\xff" * 160)
    frames.insert(60, frame_tag.stamp(b"\xff" * 160, TAG + 1, 3))
    made.session.appended[:] = b"".join(frames)
    broken = made.joined().frames
    assert broken.lost == (50,)
    assert broken.lost_before_end() == (50,)
    assert broken.repeated == (30,)
    assert broken.out_of_order == (10,)
    assert broken.strangers == 1
    assert broken.foreign_bytes == 160
    assert not broken.intact


def test_call_over_two_sessions_is_one_call() -> None:
    made = HandMade()
    made.forward(made.generate("item_1", FIRST.text)[:6_000])
    made.wait(2_000)
    made.pass_frames_on()
    before, made.session = made.session, SessionTruth("sess_2")
    made.forward(made.generate("item_2", SECOND.text))
    made.wait(6_000)
    made.pass_frames_on()
    heard = join([made.call], [made.session, before, SessionTruth("sess_3")])[0]
    assert heard.session_ids == ("sess_1", "sess_2")
    assert [item.item_id for item in heard.items] == ["item_1", "item_2"]
    assert heard.items[1].heard_text == SECOND.text
    assert heard.frames.intact


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 30_000), st.integers(0, 3_000)), max_size=6),
    st.integers(100, 9_000),
)
@settings(max_examples=40, deadline=None)
def test_played_bytes_of_all_items_are_those_the_carrier_played(
    items: list[tuple[bool, int, int]], size: int
) -> None:
    """Whatever is dropped, cleared and re-cut on the way."""
    made = HandMade()
    for number, (long, forwarded, wait_ms) in enumerate(items):
        audio = made.generate(f"item_{number}", (SECOND if long else FIRST).text)
        made.forward(audio[:forwarded], size)
        made.wait(wait_ms)
        if wait_ms % 2:
            made.carrier.receive(clear(), made.now)
    made.wait(30_000)
    heard = made.joined()
    assert heard.foreign_bytes == 0
    total = sum(end - start for item in heard.items for start, end in item.played)
    assert total == made.carrier.played_bytes()
