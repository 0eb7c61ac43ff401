"""Which message may follow which: every state against every message."""

from __future__ import annotations

import itertools

import pytest

from gateway.twilio import messages as m
from gateway.twilio.stream import TRANSITIONS, MediaStream, StreamState

START = m.Start(stream_sid="MZ1", start=m.StartDetails(call_sid="CA1", stream_sid="MZ1"))
MEDIA = m.Media(stream_sid="MZ1", media=m.MediaDetails(timestamp=0, payload=""))
MARK = m.Mark(stream_sid="MZ1", mark=m.MarkDetails(name="x"))
DTMF = m.Dtmf(stream_sid="MZ1", dtmf=m.DtmfDetails(digit="1"))
STOP = m.Stop(stream_sid="MZ1")
WAY_TO: dict[StreamState, list[m.Message]] = {
    StreamState.AWAITING: [],
    StreamState.CONNECTED: [m.Connected()],
    StreamState.STARTED: [m.Connected(), START],
    StreamState.STOPPED: [m.Connected(), START, STOP],
}
MESSAGES: list[m.Message] = [m.Connected(), START, MEDIA, MARK, DTMF, STOP]


def stream_in(state: StreamState) -> MediaStream:
    stream = MediaStream()
    for message in WAY_TO[state]:
        stream.receive(message)
    assert stream.state is state
    return stream


@pytest.mark.parametrize(
    ("state", "message"), list(itertools.product(StreamState, MESSAGES)), ids=str
)
def test_each_message_in_each_state_is_legal_or_a_policy_violation(
    state: StreamState, message: m.Message
) -> None:
    stream = stream_in(state)
    expected = TRANSITIONS.get((state, type(message)))
    if expected is None:
        with pytest.raises(m.TwilioProtocolError) as caught:
            stream.receive(message)
        assert caught.value.close_code == 1008
        assert type(message).__name__.lower() in str(caught.value)
        assert stream.state is state
    else:
        stream.receive(message)
        assert stream.state is expected


@pytest.mark.parametrize("state", StreamState)
def test_an_unknown_event_passes_in_every_state(state: StreamState) -> None:
    stream = stream_in(state)
    stream.receive(m.Unknown("new-thing"))
    assert stream.state is state


def test_a_caller_cannot_be_heard_before_start_or_after_stop() -> None:
    for state in (StreamState.AWAITING, StreamState.CONNECTED, StreamState.STOPPED):
        with pytest.raises(m.TwilioProtocolError, match="media message in a stream that is"):
            stream_in(state).receive(MEDIA)


@pytest.mark.parametrize(
    "message",
    [
        m.Media(stream_sid="MZ2", media=MEDIA.media),
        m.Mark(stream_sid="", mark=MARK.mark),
        m.Dtmf(stream_sid="mz1", dtmf=DTMF.dtmf),
        m.Stop(stream_sid="MZ2"),
    ],
    ids=str,
)
def test_a_message_of_another_stream_is_a_policy_violation(message: m.Message) -> None:
    with pytest.raises(m.TwilioProtocolError, match="another stream") as caught:
        stream_in(StreamState.STARTED).receive(message)
    assert caught.value.close_code == 1008


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (m.Start(stream_sid="", start=START.start), "streamSid"),
        (m.Start(stream_sid="MZ1", start=m.StartDetails(call_sid="")), "callSid"),
        (
            m.Start(stream_sid="MZ1", start=m.StartDetails(call_sid="CA1", stream_sid="MZ2")),
            "two different",
        ),
        (
            m.Start(
                stream_sid="MZ1",
                start=m.StartDetails(
                    call_sid="CA1", media_format=m.MediaFormat(encoding="audio/l16")
                ),
            ),
            "mediaFormat",
        ),
    ],
)
def test_a_start_that_we_cannot_serve_is_refused(start: m.Start, named: str) -> None:
    with pytest.raises(m.TwilioProtocolError, match=named):
        stream_in(StreamState.CONNECTED).receive(start)
