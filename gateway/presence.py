"""Whether Twilio's end of a stream is still there: by what comes, by asking, by callbacks. Pure.

Silence alone says nothing: Twilio may leave it out of what it sends. So a stream on which nothing
came for a while is asked by a mark, which Twilio sends back at once when nothing is left to play;
where something is left, marks are under way already, and they are an answer as well.

====================  =====================================  =========================================
silence               PRESENT                                ASKED
====================  =====================================  =========================================
something comes       the quiet begins anew                  → PRESENT, at the next look
``QUIET_US`` passed   ask; → ASKED                           –
``ANSWER_US`` passed  –                                      the stream is over: :class:`Vanished`
a look is late        it is taken again in a second          it is taken again in a second
====================  =====================================  =========================================

Callbacks overtake the socket's last bytes, so what they say has to wait for ``STOP_WAIT_US``:

====================  =====================================  =========================================
callbacks             STOPPED                                FAILED
====================  =====================================  =========================================
the wait is over      the stream is over: :class:`Stopped`   the stream is over: :class:`Stopped`;
                                                             unless something came in the wait's
                                                             second
                                                             half: it goes on, and another may
                                                                 follow
====================  =====================================  =========================================

Times are microseconds of a monotonic clock from the stream's start.
"""

from __future__ import annotations

import msgspec

from gateway.playout.clock import MediaClock

QUIET_US = 15_000_000
"""Nothing at all came for so long, no media and no mark: it is asked."""

ANSWER_US = 10_000_000
"""How long that answer may take. With the quiet before it, a peer that vanished behind a proxy or
tunnel that holds the socket open is noticed within half a minute."""

STOOD_STILL_US = 1_000_000
"""A look that comes so late says that this process stood still, and nothing of the peer: what came
meanwhile is not read yet."""

STOP_WAIT_US = 2_000_000
"""How long a stream that Twilio's callback calls over is given to say so itself. Callbacks overtake
the socket's last bytes by tenths of a second; and where the call goes on, Twilio asks for a new
stream after about one."""


class Ask(msgspec.Struct, frozen=True):
    """Write a mark of this name."""

    mark: str


class Vanished(msgspec.Struct, frozen=True):
    """The stream is over: nothing came for so long."""

    silent_s: int


class Stopped(msgspec.Struct, frozen=True):
    """The stream is over, by Twilio's callback."""


class GoesOn(msgspec.Struct, frozen=True):
    """The stream goes on after an error that Twilio's callback reported."""


Verdict = Ask | Vanished | Stopped | GoesOn


class Presence:
    """One stream's. See the module's docstring.

    Args:
        clock: The stream's media clock: it knows when media last came.
    """

    def __init__(self, clock: MediaClock) -> None:
        self.heard_us = 0
        """When anything but media last came; to be set by whoever takes it."""
        self.probe = "w0"
        """The mark that asked last, or would have. That it comes back is all that it says."""
        self._clock = clock
        self._probes = 0
        self._asked_us: int | None = None
        """When it was asked. None: PRESENT."""
        self._look_us = QUIET_US
        self._called_over_us: int | None = None
        """When a callback called the stream over. None: none did, or it goes on."""
        self._called_failed = False
        """That callback spoke of an error, which may not be the end."""

    def stream_stopped(self, now_us: int) -> None:
        """Note a callback: the stream is over. Ignored while another one is waited for."""
        if self._called_over_us is None:
            self._called_over_us, self._called_failed = now_us, False

    def stream_failed(self, now_us: int) -> None:
        """Note a callback: the stream had an error. Ignored while another one is waited for."""
        if self._called_over_us is None:
            self._called_over_us, self._called_failed = now_us, True

    def next_timer_us(self) -> int:
        """When :meth:`handle_timer` wants to be called."""
        if self._called_over_us is None:
            return self._look_us
        return min(self._look_us, self._called_over_us + STOP_WAIT_US)

    def handle_timer(self, now_us: int, *, idle: bool) -> Verdict | None:
        """Do what is due, the first of it.

        Args:
            now_us: The gateway's clock.
            idle: Nothing is left to play, so that no mark is under way.

        Returns:
            None when there is nothing to act on.
        """
        over_us = self._called_over_us
        if over_us is not None and now_us >= over_us + STOP_WAIT_US:
            # What was under way came within the first half of the wait.
            if not self._called_failed or self._last_heard_us <= over_us + STOP_WAIT_US // 2:
                return Stopped()
            self._called_over_us = None
            return GoesOn()
        return self._look(now_us, idle) if now_us >= self._look_us else None

    def _look(self, now_us: int, idle: bool) -> Verdict | None:
        late_us = now_us - self._look_us
        heard_us = self._last_heard_us
        if self._asked_us is not None and heard_us >= self._asked_us:
            self._asked_us = None
        if late_us > STOOD_STILL_US:
            self._look_us = now_us + STOOD_STILL_US
        elif self._asked_us is not None:
            return Vanished((now_us - heard_us) // 1_000_000)
        elif now_us < heard_us + QUIET_US:
            self._look_us = heard_us + QUIET_US
        else:
            self._asked_us = now_us
            self._look_us = now_us + ANSWER_US
            if idle:
                self._probes += 1
                self.probe = f"w{self._probes}"
                return Ask(self.probe)
        return None

    @property
    def _last_heard_us(self) -> int:
        return max(self.heard_us, self._clock.received_us or 0)
