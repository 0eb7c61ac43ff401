"""Says a sentence without the model. Pure.

A notice is an item of ours among the model's: recorded, played, cut by a barge-in and its words
timed like any other, and marked as a notice in its first fact. What is particular to it:

==========================  ======================================================================
it belongs to no response   nothing of the model's ends it, and what the model says of its id
                            changes nothing
all of it is there at once  it is over as soon as it begins; only its playback goes on
it is not the model's       the model is told of it, as an assistant's message of text, when a
                            session stands; it is never told to truncate or delete it, since of
                            text there is nothing to truncate, and that something was said is true
==========================  ======================================================================

Its id is unique in the call, not only in the session: a call whose stream was lost has another one.
"""

from __future__ import annotations

from runtime.units import BYTES_PER_MS
from session.notices import Notice, NoticeBook
from session.realtime.events import CreateItem
from session.realtime.items import Items
from session.realtime.outputs import Note, Outputs
from session.realtime.setup import Setup
from session.realtime.state import Memory


class Notices:
    """Of one conversation.

    Args:
        book: The sentences.
        tag: What makes the ids unique in the call: a dozen letters and digits at most, since the
            API takes ids of up to 32.
        setup: Whether there is a session that can be told.
        memory: Whether the caller is there.
        items: Where the items go.
        outputs: For the model.
    """

    def __init__(
        self,
        book: NoticeBook,
        tag: str,
        *,
        setup: Setup,
        memory: Memory,
        items: Items,
        outputs: Outputs,
    ) -> None:
        self._book = book
        self._tag = tag
        self._setup = setup
        self._memory = memory
        self._items = items
        self._outputs = outputs
        self._said = 0

    def say(self, notice: Notice) -> float:
        """Say it after all audio that was given before.

        Returns:
            Its length in seconds. 0: nothing was said, since the caller has left or the book has no
            such sentence.
        """
        sentence = self._book.get(notice)
        if sentence is None or self._memory.caller_left:
            return 0.0
        item_id = self._new_id()
        while item_id in self._memory.items:  # a server that knows one can make up the next
            item_id = self._new_id()
        self._items.notice(item_id, sentence)
        if self._setup.configured:
            content = [{"type": "output_text", "text": sentence.text}]
            item = {"id": item_id, "type": "message", "role": "assistant", "content": content}
            self._outputs.send(CreateItem(event_id=self._outputs.event_id(), item=item))
        self._outputs.note(Note.NOTICE, notice.value)
        return sentence.audio_bytes / (1000 * BYTES_PER_MS)

    def _new_id(self) -> str:
        self._said += 1
        return f"notice_{self._tag}_{self._said}"
