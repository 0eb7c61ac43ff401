"""The viewer's pages as text (pure): transcripts in, HTML out, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from google.protobuf.timestamp_pb2 import Timestamp

from asheard.timeline import silence_in_words, timeline
from asheard.v1.transcript_pb2 import CallEvent, CallState, Heard, Role, Transcript, Turn
from asheard.v1.transcript_service_pb2 import CallSummary

RELOAD_S = 2
"""How often a page of a call under way loads itself again."""

_STATES = {
    CallState.CALL_STATE_ACTIVE: "active",
    CallState.CALL_STATE_COMPLETED: "completed",
    CallState.CALL_STATE_FAILED: "failed",
}
_SPEAKERS = {Role.ROLE_CALLER: "Caller", Role.ROLE_AGENT: "Agent", Role.ROLE_TOOL: "Tool"}


def calls(page: Sequence[CallSummary], *, older: str) -> str:
    """The list of calls; ``older`` is the query of the next page, "" on the last."""
    rows = "".join(
        f"<tr><td><time>{_time(call.start_time) if call.HasField('start_time') else ''}</time>"
        f"<td>{_number(call.from_number)}<td>{_number(call.to_number)}"
        f'<td class="{_state(call.state)}">{_state(call.state)}{"" if call.final else " …"}'
        f'<td><a href="/calls/{_path(call.call_sid)}">{escape(call.call_sid)}</a>'
        for call in page
    )
    body = (
        "<table><thead><tr><th>Start (UTC)<th>From<th>To<th>State<th>Call</thead>"
        f"<tbody>{rows}</tbody></table>"
        if page
        else "<p>No calls yet.</p>"
    )
    if older:
        body += f'<p><a href="/?before={escape(older)}">Older calls</a></p>'
    return _html("Calls", f"<h1>Calls</h1>{body}")


def transcript(call: Transcript) -> str:
    """One call: who said what, and which of it was heard."""
    start = _time(call.start_time) + " UTC" if call.HasField("start_time") else "not known yet"
    state = f'<span class="{_state(call.state)}">{_state(call.state)}</span>'
    finality = "final" if call.final else "may still change"
    head = (
        f'<p><a href="/">All calls</a></p><h1>{escape(call.call_sid)}</h1>'
        f"<p>{_number(call.from_number)} → {_number(call.to_number)} · {start} · {state} · "
        f"{finality} · revision {call.revision}</p>"
        "<p class=key>Agent: <span>heard</span>, <u>heard in part</u>, <s>not heard</s></p>"
    )
    entries = "".join(
        _turn(entry) if isinstance(entry, Turn) else _event(entry) for entry in timeline(call)
    )
    body = head + (entries or "<p>Nothing was said yet.</p>")
    return _html(call.call_sid, body, reload=not call.final)


def login(*, wrong: bool = False) -> str:
    """The form that asks for a token."""
    fault = "<p class=failed>This is not a valid token.</p>" if wrong else ""
    return _html(
        "Sign in",
        f"<h1>Sign in</h1>{fault}<form method=post action=/login><label>API token "
        "<input type=password name=token autocomplete=current-password autofocus required></label> "
        "<button>Sign in</button></form>",
    )


def message(text: str) -> str:
    """A page that says one thing."""
    return _html("asheard", f'<p>{escape(text)}</p><p><a href="/">All calls</a></p>')


def _turn(turn: Turn) -> str:
    facts = [f"{_clock(turn.start_ms)}"] if turn.HasField("start_ms") else []
    if turn.role == Role.ROLE_AGENT:
        facts.append(
            f"{_seconds(turn.heard_audio_ms)} of {_seconds(turn.generated_audio_ms)} s heard"
        )
        if turn.interrupted:
            facts.append("interrupted")
        if turn.notice:
            facts.append("notice: said by asheard, not by the model")
        if turn.incomplete_reason:
            facts.append(f"incomplete: {escape(turn.incomplete_reason)}")
        text = _agent_text(turn)
    elif turn.role == Role.ROLE_CALLER:
        text = _caller_text(turn)
    else:
        text = f"<code>{escape(turn.generated_text)}</code>"
    speaker = _SPEAKERS.get(turn.role, "?")
    return (
        f"<article class={speaker.lower()}><header><b>{speaker}</b> {' · '.join(facts)}</header>"
        f"<p>{text}</p></article>"
    )


def _event(event: CallEvent) -> str:
    """What was between turns; nothing, for what this version does not know."""
    if not event.HasField("silence"):
        return ""
    start = f"{_clock(event.start_ms)} · " if event.HasField("start_ms") else ""
    return f"<p class=silence>{start}{silence_in_words(event.silence)}</p>"


def _caller_text(turn: Turn) -> str:
    text = escape(turn.heard_text)
    if turn.transcription_failed:
        return (
            f"{text} <i>the rest could not be transcribed</i>"
            if text
            else "<i>could not be transcribed</i>"
        )
    return text or "<i>not transcribed</i>"


def _agent_text(turn: Turn) -> str:
    """Words with their marks; runs of unheard words share one, so that the line through them is."""
    pieces: list[str] = []
    unheard: list[str] = []
    for word in turn.words:
        if word.heard == Heard.HEARD_NONE:
            unheard.append(escape(word.text))
            continue
        if unheard:
            pieces.append(f"<s>{' '.join(unheard)}</s>")
            unheard = []
        if word.heard == Heard.HEARD_PARTIAL:
            share = round(100 * word.played_share)
            doubt = ", uncertain" if word.uncertain else ""
            pieces.append(f'<u title="{share} % of it was played{doubt}">{escape(word.text)}</u>')
        else:
            pieces.append(escape(word.text))
    if unheard:
        pieces.append(f"<s>{' '.join(unheard)}</s>")
    return " ".join(pieces)


def _html(title: str, body: str, *, reload: bool = False) -> str:
    refresh = f'<meta http-equiv="refresh" content="{RELOAD_S}">' if reload else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'{refresh}<title>{escape(title)} · asheard</title><link rel="stylesheet" '
        f'href="/viewer.css"></head><body><main>{body}</main></body></html>'
    )


def _time(time: Timestamp) -> str:
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def _clock(ms: int) -> str:
    minutes, rest_ms = divmod(ms, 60_000)
    return f"{minutes}:{rest_ms / 1000:04.1f}"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f}"


def _state(state: CallState.ValueType) -> str:
    return _STATES.get(state, "unknown")


def _number(number: str) -> str:
    return escape(number) or "–"


def _path(text: str) -> str:
    return quote(text, safe="")
