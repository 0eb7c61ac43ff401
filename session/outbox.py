"""What waits for the next message to one gateway. Pure: posts in, messages out.

gRPC's price is per message and not per byte, so a message carries what many calls have.

Rules:

1. Control goes before audio, whoever's it is; an interrupt takes back its call's audio that has not
   left, too. Control and the first audio of an item do not wait for a busy link's next message. The
   audio after it is generated faster than it is played, so that it waits anyway, here or at Twilio.
2. Audio keeps its order within a call and is fair among calls: each message takes a piece of each
   call in turn.
3. The end of a call comes in a later message than all its audio.
4. What waits is bounded per call, in bytes and in number, for a gateway that takes nothing: then
   the call ends, since none of it may be lost.
5. What a message cannot hold is refused when it is posted, to its own call.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from asheard.v1 import fact_pb2, session_service_pb2

BATCH_BYTES = 256 * 1024
"""Maximum of audio in a message: some 24 s of speech. More waits for the next, so that an interrupt
never has to wait for a megabyte."""

PIECE_BYTES = 64 * 1024
"""Maximum of audio in an ``AgentAudio``, 6 s; a longer piece is cut. A multiple of four, since base64
text may be cut between groups of four."""

MAX_AUDIO_BYTES = 8 * 1024 * 1024
"""Maximum of a call's audio that waits for its gateway. Ten minutes, all that Twilio would keep, are
6.4 MB; a call that has more waiting ends."""

MAX_CONTROLS = 256
"""Maximum of a call's control that waits for its gateway, interrupts as a rule: beyond it a call
ends too."""

CONTROL_BYTES = 1024 * 1024
"""Maximum of control in a message, in bytes. More waits for the next, and audio after it."""

MAX_ITEM_ID_BYTES = 1024
"""The longest item id that is passed on; the API's have some thirty letters."""

MAX_CONTENT_INDEX = 2**31 - 1

MAX_DETAIL_CHARS = 500
"""Maximum of a text for the gateway's log."""

AnyControl = (
    session_service_pb2.CallAccepted
    | session_service_pb2.CallRefused
    | session_service_pb2.Interrupt
    | session_service_pb2.CallFinished
    | session_service_pb2.LoadReport
    | session_service_pb2.StreamStopped
)


class OutletFull(Exception):
    """The gateway does not take what the call has for it, and more waits than may. The text says
    what; the call ends."""


class AudioPiece(msgspec.Struct, frozen=True, gc=False):
    """What an ``AgentAudio`` says."""

    call: int
    item_id: str
    content_index: int
    payload: bytes
    last: bool


class Taken(NamedTuple):
    """The next message, and what could not be put into it."""

    message: session_service_pb2.LinkResponse | None
    """None: there is nothing to be sent."""
    faults: list[tuple[int, Exception]]
    """Calls whose audio no message can hold: what is left of them is for the link to end."""


class Outbox:
    """What waits for the next message to one gateway; see the module for the rules.

    Args:
        on_post: Is told when something is posted, and whether it is urgent: not to wait for a busy
            link's next message. It must not raise.
    """

    def __init__(self, on_post: Callable[[bool], None]) -> None:
        self._on_post = on_post
        self._control: list[session_service_pb2.SessionControl] = []
        self._n_controls: Counter[int] = Counter()
        """How much control of each call waits."""
        self._report: session_service_pb2.LoadReport | None = None
        self._audio: dict[int, deque[AudioPiece]] = {}
        self._audio_bytes: dict[int, int] = {}
        self._after_audio: list[tuple[int, session_service_pb2.SessionControl]] = []

    @property
    def waiting(self) -> bool:
        """Whether there is anything to be taken."""
        return bool(self._control or self._audio or self._after_audio or self._report)

    @property
    def urgent(self) -> bool:
        """Whether control waits: after :meth:`take`, it is what one message could not hold."""
        return bool(self._control or self._report)

    def report(self, load: session_service_pb2.LoadReport) -> None:
        """Post a load report, instead of one that has not left yet."""
        self._report = load
        self._on_post(True)

    def control(self, call: int, **body: AnyControl) -> None:
        """Post control.

        Raises:
            OutletFull: Too much of the call's waits already.
        """
        message = _control(call, body)
        if self._n_controls[call] >= MAX_CONTROLS:
            raise OutletFull(f"the gateway did not take {MAX_CONTROLS} messages of the call")
        self._n_controls[call] += 1
        self._control.append(message)
        self._on_post(True)

    def control_after_audio(self, call: int, **body: AnyControl) -> None:
        """Post control that comes in a later message than all audio of the call so far."""
        self._after_audio.append((call, _control(call, body)))
        self._on_post(False)

    def audio(self, piece: AudioPiece, *, urgent: bool) -> None:
        """Post audio.

        Raises:
            OutletFull: Too much of the call's waits already.
        """
        waiting = self._audio_bytes.get(piece.call, 0) + len(piece.payload)
        if waiting > MAX_AUDIO_BYTES:
            mebibytes = MAX_AUDIO_BYTES >> 20
            raise OutletFull(f"the gateway did not take {mebibytes} MiB of the call's audio")
        self._audio_bytes[piece.call] = waiting
        queue = self._audio.get(piece.call)
        if queue is None:
            queue = self._audio[piece.call] = deque()
        queue.append(piece)
        self._on_post(urgent)

    def purge(self, call: int) -> None:
        """Take back a call's audio."""
        self._audio.pop(call, None)
        self._audio_bytes.pop(call, None)

    def take(self) -> Taken:
        """The next message. What is in it is not here any more."""
        self._let_go_after_audio()
        control = self._take_control()
        if self._control:  # it goes before audio
            return Taken(session_service_pb2.LinkResponse(control=control), [])
        pieces = self._take_audio()
        if not control and not pieces:
            return Taken(None, [])
        message = session_service_pb2.LinkResponse(control=control)
        faults: list[tuple[int, Exception]] = []
        # In place: a message given to another's constructor is encoded and decoded for it.
        for piece in pieces:
            try:
                message.agent_audio.add(
                    call=piece.call,
                    item_id=piece.item_id,
                    content_index=piece.content_index,
                    payload=piece.payload,
                    last=piece.last,
                )
            except Exception as error:  # it should not have got this far
                faults.append((piece.call, error))
        return Taken(message, faults)

    def _let_go_after_audio(self) -> None:
        """Rule 3: control that waited for its call's audio waits no longer when none is left."""
        if not self._after_audio:
            return
        still_waiting: list[tuple[int, session_service_pb2.SessionControl]] = []
        for call, message in self._after_audio:
            if call in self._audio:
                still_waiting.append((call, message))
            else:
                self._control.append(message)
        self._after_audio = still_waiting

    def _take_control(self) -> list[session_service_pb2.SessionControl]:
        """The load report, and as much control as a message takes."""
        control, size = self._control, 0
        taken = len(control)
        for number, message in enumerate(control):
            size += message.ByteSize()
            if size > CONTROL_BYTES and number:
                taken = number
                break
        self._control = control[taken:]
        if not self._control:
            self._n_controls.clear()
        del control[taken:]
        if self._report is not None:
            control.append(_control(0, {"load_report": self._report}))
            self._report = None
        return control

    def _take_audio(self) -> list[AudioPiece]:
        taken: list[AudioPiece] = []
        size = 0
        while self._audio and size < BATCH_BYTES:
            for call in list(self._audio):
                queue = self._audio[call]
                piece = queue.popleft()
                taken.append(piece)
                size += len(piece.payload)
                if queue:
                    self._audio_bytes[call] -= len(piece.payload)
                else:
                    self.purge(call)
        return taken


class Outlet:
    """One call's way to its gateway: into the outbox of its link. Nothing here waits.

    Args:
        outbox: Of the link.
        handle: The call's number on it.
    """

    def __init__(self, outbox: Outbox, handle: int) -> None:
        self._outbox = outbox
        self._handle = handle
        self._item_id = ""
        """Whose audio was posted last."""

    def audio(self, item_id: str, content_index: int, payload: bytes, last: bool) -> None:
        """Give audio to the gateway, in order.

        Args:
            item_id: The item that it is of.
            content_index: The part of the item.
            payload: Base64 of µ-law at 8 kHz.
            last: No more audio of this part will come.

        Raises:
            OutletFull: Too much waits.
            ValueError: It cannot be in a message.
        """
        urgent = item_id != self._item_id
        if urgent and len(item_id.encode()) > MAX_ITEM_ID_BYTES:
            raise ValueError(f"an item id of {len(item_id)} letters cannot be passed on")
        if not 0 <= content_index <= MAX_CONTENT_INDEX:
            raise ValueError(f"content_index {content_index} cannot be passed on")
        while len(payload) > PIECE_BYTES:
            piece = AudioPiece(
                self._handle, item_id, content_index, payload[:PIECE_BYTES], last=False
            )
            self._outbox.audio(piece, urgent=urgent)
            payload = payload[PIECE_BYTES:]
        piece = AudioPiece(self._handle, item_id, content_index, payload, last)
        self._outbox.audio(piece, urgent=urgent)
        self._item_id = item_id

    def interrupt(self, interrupt: session_service_pb2.Interrupt) -> None:
        """Take back this call's audio that has not left yet, and overtake everything else.

        Raises:
            OutletFull: Too much waits.
        """
        self._outbox.purge(self._handle)
        self._outbox.control(self._handle, interrupt=interrupt)

    def finished(
        self, outcome: fact_pb2.CallOutcome.ValueType, detail: str, *, told: bool = False
    ) -> None:
        """The session is over; comes after all audio.

        Args:
            outcome: How it ended.
            detail: For the gateway's log.
            told: The audio before this tells the caller that the call ends.
        """
        finished = session_service_pb2.CallFinished(
            outcome=outcome, detail=_readable(detail), told=told
        )
        self._outbox.control_after_audio(self._handle, call_finished=finished)


def _control(call: int, body: dict[str, AnyControl]) -> session_service_pb2.SessionControl:
    if len(body) != 1:
        raise AssertionError("a control has exactly one body")
    return session_service_pb2.SessionControl(call=call, **body)  # type: ignore[arg-type]


def _readable(detail: str) -> str:
    """A text as a message can hold it: not too long, and nothing that is no character."""
    return detail[:MAX_DETAIL_CHARS].encode(errors="replace").decode()
