"""The events of the OpenAI Realtime API: a table of types. Pure; the codec is beside it.

Server events hold only the fields that we use. GA and beta name of an event have the same value: a
beta struct is a subclass of the GA one. What the server sends that is none of these is an
:class:`UnknownEvent` or a :class:`MalformedEvent`. Audio stays base64 text, which nothing here
decodes.

Client events have an ``event_id`` each, the only thing by which an ``error`` can be correlated. The
one that is not here is ``input_audio_buffer.append``, fifty times a second: it is never answered,
and :func:`native.append_message` writes it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from session.realtime.bounds import MAX_ID_CHARS, MAX_PARTS

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
"""Of a response, an item, a call."""

Name = Annotated[str, Meta(max_length=MAX_ID_CHARS)]

ContentIndex = Annotated[int, Meta(ge=0, lt=MAX_PARTS)]
"""One that is beyond makes an event unreadable: another part must not be taken for it."""

# --- what server events carry ---------------------------------------------------------------


class Session(msgspec.Struct, frozen=True):
    """The server's view of the session."""

    id: Name = ""
    audio: Any = None
    """The audio settings in force, in the API's own shape; see :mod:`session.realtime.agreed`."""
    input_audio_format: Any = UNSET
    """This and the rest: where beta servers have what ``audio`` holds."""
    output_audio_format: Any = UNSET
    turn_detection: Any = UNSET
    input_audio_transcription: Any = UNSET
    voice: Any = UNSET


class Content(msgspec.Struct, frozen=True):
    """One content part, of an item or in a part event."""

    type: str = ""
    """``audio`` or ``text`` in part events; ``output_audio``, ``input_audio`` … in items."""
    transcript: str | None = None
    text: str | None = None

    @property
    def is_audio(self) -> bool:
        """Whether the caller can hear it."""
        return self.type in ("audio", "output_audio")


class Item(msgspec.Struct, frozen=True):
    """A conversation item."""

    id: Id
    type: str = "message"
    """``message``, ``function_call``, ``function_call_output``, or one of the hosted tools'."""
    role: str | None = None
    """``user``, ``assistant``, ``system`` of a message; None of anything else."""
    status: str | None = None
    """``in_progress``, ``completed``, ``incomplete``."""
    content: list[Content] | None = None
    call_id: Id | None = None
    name: Name | None = None
    arguments: str | None = None


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong. The message may quote what was sent: it is not to be logged as it is."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None
    """The client event that caused it."""

    @classmethod
    def from_odd(cls, raw: object) -> ErrorDetail:
        """What some servers send in its place: a code or a text, or nothing."""
        if not isinstance(raw, str):
            return cls()
        return cls(code=raw if raw.isidentifier() else None, message=raw)


class StatusDetails(msgspec.Struct, frozen=True):
    """Why a response did not complete."""

    type: str | None = None
    reason: str | None = None
    error: ErrorDetail | None = None


class TokenDetails(msgspec.Struct, frozen=True):
    """Tokens by kind."""

    text_tokens: int | None = 0
    audio_tokens: int | None = 0
    cached_tokens: int | None = 0


class Usage(msgspec.Struct, frozen=True):
    """What a response cost."""

    input_token_details: TokenDetails | None = None
    output_token_details: TokenDetails | None = None


class Response(msgspec.Struct, frozen=True):
    """A response at its start or end."""

    id: Id
    status: str | None = None
    """``in_progress``, ``completed``, ``cancelled``, ``incomplete``, ``failed``."""
    status_details: StatusDetails | str | None = None
    """Some servers send a bare string."""
    output: list[Item] | None = None
    usage: Usage | None = None

    @property
    def reason(self) -> str:
        """Why it ended as it did: a code or reason of the server's, or empty."""
        details = self.status_details
        if isinstance(details, str):
            return details
        if details is None:
            return ""
        if details.error is not None and details.error.code is not None:
            return str(details.error.code)
        return details.reason or (details.error.type if details.error else None) or ""

    @property
    def message(self) -> str:
        """The server's words about why it ended; they may quote what was sent."""
        details = self.status_details
        if isinstance(details, str) or details is None:
            return details or ""
        return (details.error.message if details.error is not None else None) or ""


class RateLimit(msgspec.Struct, frozen=True):
    """One of the account's limits."""

    name: str = ""
    limit: float | None = None
    remaining: float | None = None
    reset_seconds: float | None = None


# --- server events ---------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """Anything that the server sends."""


class Error(ServerEvent, frozen=True, tag="error"):
    """Any problem; the session normally stays open."""

    error: ErrorDetail = ErrorDetail()


class SessionCreated(ServerEvent, frozen=True, tag="session.created"):
    """The first event on a socket."""

    session: Session = Session()


class SessionUpdated(ServerEvent, frozen=True, tag="session.updated"):
    """The answer to ``session.update``."""

    session: Session = Session()


class ItemAdded(ServerEvent, frozen=True, tag="conversation.item.added"):
    """An item joined the conversation; order is by ``previous_item_id`` of this event alone."""

    item: Item
    previous_item_id: Name | None = None


class BetaItemCreated(ItemAdded, frozen=True, tag="conversation.item.created"):
    """Beta name of :class:`ItemAdded`."""


class ItemDone(ServerEvent, frozen=True, tag="conversation.item.done"):
    """An item is final. Its ``previous_item_id`` is unreliable and not read."""

    item: Item


class ItemTruncated(ServerEvent, frozen=True, tag="conversation.item.truncated"):
    """The answer to ``conversation.item.truncate``."""

    item_id: Id
    content_index: ContentIndex = 0
    audio_end_ms: int = 0


class ItemDeleted(ServerEvent, frozen=True, tag="conversation.item.deleted"):
    """The answer to ``conversation.item.delete``."""

    item_id: Id


class TranscriptionDelta(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.delta"
):
    """A piece of what the caller said; may come before the item exists."""

    item_id: Id
    content_index: int | None = 0
    delta: str | None = None


class TranscriptionCompleted(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.completed"
):
    """All that the caller said."""

    item_id: Id
    content_index: int | None = 0
    transcript: str | None = None


class TranscriptionFailed(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.failed"
):
    """Transcription failed; the conversation goes on."""

    item_id: Id
    content_index: int | None = 0
    error: ErrorDetail | None = None


class SpeechStarted(ServerEvent, frozen=True, tag="input_audio_buffer.speech_started"):
    """The caller began to speak."""

    item_id: Name = ""
    audio_start_ms: int = 0
    """In the model's input buffer; the prefix padding lies before the onset."""


class SpeechStopped(ServerEvent, frozen=True, tag="input_audio_buffer.speech_stopped"):
    """The caller stopped speaking."""

    item_id: Name = ""
    audio_end_ms: int = 0
    """In the model's input buffer; includes the silence that voice detection waited for."""


class Committed(ServerEvent, frozen=True, tag="input_audio_buffer.committed"):
    """The input buffer became a caller's item."""

    item_id: Id
    previous_item_id: Name | None = None


class ResponseCreated(ServerEvent, frozen=True, tag="response.created"):
    """A response begins."""

    response: Response


class ResponseDone(ServerEvent, frozen=True, tag="response.done"):
    """A response ended. Comes once; around interruptions also late, or without a creation."""

    response: Response
    """Its id is empty when none could be read."""


class OutputItemAdded(ServerEvent, frozen=True, tag="response.output_item.added"):
    """A response begins an item."""

    response_id: Id
    item: Item


class OutputItemDone(ServerEvent, frozen=True, tag="response.output_item.done"):
    """A response ended an item; comes after :class:`ItemDone`."""

    response_id: Id
    item: Item


class PartAdded(ServerEvent, frozen=True, tag="response.content_part.added"):
    """A content part begins."""

    response_id: Id
    item_id: Id
    content_index: ContentIndex = 0
    part: Content = Content()


class AudioDelta(ServerEvent, frozen=True, gc=False, tag="response.output_audio.delta"):
    """A piece of generated audio."""

    response_id: Id
    item_id: Id
    delta: str
    """Base64 of µ-law at 8 kHz, mono."""
    content_index: ContentIndex = 0


class BetaAudioDelta(AudioDelta, frozen=True, gc=False, tag="response.audio.delta"):
    """Beta name of :class:`AudioDelta`."""


class AudioDone(ServerEvent, frozen=True, tag="response.output_audio.done"):
    """No more audio of a part; also sent for what was cut short."""

    response_id: Id
    item_id: Id
    content_index: ContentIndex = 0


class BetaAudioDone(AudioDone, frozen=True, tag="response.audio.done"):
    """Beta name of :class:`AudioDone`."""


class TranscriptDelta(
    ServerEvent, frozen=True, gc=False, tag="response.output_audio_transcript.delta"
):
    """A piece of what the model says; comes before its audio."""

    response_id: Id
    item_id: Id
    delta: str
    content_index: ContentIndex = 0


class BetaTranscriptDelta(
    TranscriptDelta, frozen=True, gc=False, tag="response.audio_transcript.delta"
):
    """Beta name of :class:`TranscriptDelta`."""


class TranscriptDone(ServerEvent, frozen=True, tag="response.output_audio_transcript.done"):
    """All that the model said in a part."""

    response_id: Id
    item_id: Id
    transcript: str | None = None
    content_index: ContentIndex = 0


class BetaTranscriptDone(TranscriptDone, frozen=True, tag="response.audio_transcript.done"):
    """Beta name of :class:`TranscriptDone`."""


class ArgumentsDone(ServerEvent, frozen=True, tag="response.function_call_arguments.done"):
    """A function call is complete."""

    response_id: Id
    item_id: Id
    call_id: Id
    arguments: str = ""
    name: Name | None = None
    """Absent from older servers; then the item has it."""


class RateLimitsUpdated(ServerEvent, frozen=True, tag="rate_limits.updated"):
    """What is left of the account's limits."""

    rate_limits: list[RateLimit] = []


class UnknownEvent(msgspec.Struct, frozen=True):
    """An event of a type that we do not know, or know and have no use for."""

    type: str
    expected: bool
    """It is in the published protocol."""


class MalformedEvent(msgspec.Struct, frozen=True):
    """An event that we know, of which too little can be read, or what is no event at all."""

    type: str
    """One of ours, or :data:`UNREADABLE`."""
    detail: str
    """Which field, without its value."""


UNREADABLE = "unreadable"
"""The type of what has none that can be read."""


AnyServerEvent = (
    Error | SessionCreated | SessionUpdated | ItemAdded | BetaItemCreated | ItemDone
    | ItemTruncated | ItemDeleted | TranscriptionDelta | TranscriptionCompleted
    | TranscriptionFailed | SpeechStarted | SpeechStopped | Committed | ResponseCreated
    | ResponseDone | OutputItemAdded | OutputItemDone | PartAdded | AudioDelta | BetaAudioDelta
    | AudioDone | BetaAudioDone | TranscriptDelta | BetaTranscriptDelta | TranscriptDone
    | BetaTranscriptDone | ArgumentsDone | RateLimitsUpdated
)  # fmt: skip
"""What :func:`session.realtime.codec.decode` finds of interest."""

UNUSED = frozenset(
    {
        "conversation.created",
        "conversation.item.retrieved",
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.cleared",
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.dtmf_event_received",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "output_audio_buffer.cleared",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.text.delta",
        "response.text.done",
        "response.function_call_arguments.delta",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
    }
)
"""Published events that say nothing we need: text that nobody can hear, hosted tools, and what
belongs to WebRTC and SIP."""


# --- client events ----------------------------------------------------------------------------


class ClientEvent(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    """Anything that we send except audio."""

    event_id: str
    """Unique in the session; an ``error`` repeats it."""


class UpdateSession(ClientEvent, frozen=True, tag="session.update", kw_only=True):
    """Configure the session; ``session`` is in the API's own shape."""

    session: dict[str, Any]


class CommitAudio(ClientEvent, frozen=True, tag="input_audio_buffer.commit", kw_only=True):
    """Make the input buffer a caller's item, without waiting for voice detection."""


class CreateItem(ClientEvent, frozen=True, tag="conversation.item.create", kw_only=True):
    """Add an item, in the API's own shape."""

    item: dict[str, Any]


class TruncateItem(ClientEvent, frozen=True, tag="conversation.item.truncate", kw_only=True):
    """Tell the model how much of an item was played; its transcript is removed at the server."""

    item_id: str
    content_index: int
    audio_end_ms: int


class DeleteItem(ClientEvent, frozen=True, tag="conversation.item.delete", kw_only=True):
    """Remove an item of which nothing was heard."""

    item_id: str


class ResponseOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is particular to one response."""

    instructions: str | None = None
    """In place of the session's. None: the session's."""
    tool_choice: str | None = None
    """``none``: it may call no functions. None: the session's."""


class CreateResponse(ClientEvent, frozen=True, tag="response.create", kw_only=True):
    """Let the model speak."""

    response: ResponseOptions | None = None


class CancelResponse(ClientEvent, frozen=True, tag="response.cancel", kw_only=True):
    """Stop a response."""

    response_id: str
