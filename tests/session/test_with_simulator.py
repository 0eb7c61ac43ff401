"""The real worker at the product's own Realtime simulator, which knows what was really said."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asheard.v1 import fact_pb2, transcript_pb2
from simulators.realtime.script import AgentScript, Hearing, Reply, Speak, bakery, say
from simulators.realtime.server import RealtimeSimulator
from simulators.speech.corpus import spoken
from tests.session.ends import FRAME, Endpoint, Worker, until, worker

FIRST_MEDIA_MS = 1000

LISTEN = (
    "turn_detection: {type: server_vad, threshold: 0.5, prefix_padding_ms: 300, "
    "silence_duration_ms: 500}\n"
)


def frames(ulaw: bytes) -> list[bytes]:
    """Speech in whole frames of 20 ms, as Twilio sends it."""
    padded = ulaw + b"\xff" * (-len(ulaw) % 160)
    return [base64.b64encode(padded[at : at + 160]) for at in range(0, len(padded), 160)]


class Caller:
    """Sends the caller's frames in order, with Twilio's timestamps."""

    def __init__(self, w: Worker) -> None:
        self._worker = w
        self.media_ms = FIRST_MEDIA_MS
        self.sent = bytearray()

    async def send(self, payloads: Iterable[bytes]) -> None:
        """At once: the model's clock counts audio, not time."""
        batch = list(payloads)
        await self._worker.gateway.send_audio(*batch, media_ms=self.media_ms)
        self.media_ms += 20 * len(batch)
        self.sent += b"".join(base64.b64decode(payload) for payload in batch)


@asynccontextmanager
async def simulated(
    script: AgentScript, agent: str | None, directory: Path
) -> AsyncIterator[tuple[Worker, RealtimeSimulator]]:
    async with (
        RealtimeSimulator(script) as realtime,
        worker(agent=agent, directory=directory, realtime=Endpoint(realtime.url)) as w,
    ):
        await w.gateway.open()
        yield w, realtime


def heard_by_gateway(w: Worker, item_id: str) -> bytes:
    """All audio of an item that the gateway was given."""
    return b"".join(
        base64.b64decode(audio.payload)
        for message in w.gateway.messages
        for audio in message.agent_audio
        if audio.item_id == item_id
    )


async def test_the_bakery_call_with_its_barge_in(tmp_path: Path) -> None:
    async with simulated(bakery(), None, tmp_path) as (w, realtime):
        caller = Caller(w)
        await until(lambda: any(last for *_, last in w.gateway.agent_audio()), "the greeting")
        (greeting,) = {item_id for item_id, *_ in w.gateway.agent_audio()}
        ms = realtime.sessions[0].agent_items[0].generated_ms
        await w.gateway.positions((greeting, ms), cause=fact_pb2.POSITION_CAUSE_PLAYED)

        await caller.send(frames(spoken("I want bagels and a soda.").ulaw))
        await caller.send([FRAME] * 50)
        await until(
            lambda: sum(last for *_, last in w.gateway.agent_audio()) == 2, "the quote, generated"
        )
        quote = w.gateway.agent_audio()[-1][0]
        await caller.send([FRAME] * 20)
        sorry = spoken("Sorry for interrupting, do you also have coffee?")
        onset_ms = caller.media_ms + sorry.onset_ms
        await caller.send(frames(sorry.ulaw))
        interrupt = await w.gateway.wait_for("interrupt")
        detected = [s for s in realtime.sessions[0].speech if s.started][-1]
        assert interrupt.onset_ms == FIRST_MEDIA_MS + detected.audio_ms + 300
        assert interrupt.onset_ms == pytest.approx(onset_ms, abs=200), "voice detection's share"
        await w.gateway.positions((quote, 2345), interrupt_id=1)
        await caller.send([FRAME] * 50)
        await until(lambda: w.gateway.agent_audio()[-1][0] != quote, "the answer")
        await until(lambda: w.gateway.agent_audio()[-1][2], "the answer, whole")
        await w.gateway.close()
        await w.facts.wait_for("session_ended")

        truth = realtime.sessions[0]
        assert bytes(truth.appended) == bytes(caller.sent)
        assert [item.truncated_ms for item in truth.agent_items] == [None, 2345, None]
        assert truth.refusals == []
        for item in truth.agent_items:
            assert heard_by_gateway(w, item.item_id) == bytes(item.audio)
        assert [(f.text, f.audio_ms) for f in w.facts.of("item_generated")] == [
            (item.text, item.generated_ms) for item in truth.agent_items
        ]
        added = [(f.item_id, f.role) for f in w.facts.of("item_added")]
        assert [role for _, role in added] == [
            transcript_pb2.ROLE_AGENT,
            transcript_pb2.ROLE_CALLER,
            transcript_pb2.ROLE_AGENT,
            transcript_pb2.ROLE_CALLER,
            transcript_pb2.ROLE_AGENT,
        ]
        said = {f.item_id: f.text for f in w.facts.of("caller_transcribed") if f.complete}
        assert [said[item_id] for item_id, role in added if role == transcript_pb2.ROLE_CALLER] == [
            "I want bagels and a soda.",
            "Sorry for interrupting, do you also have coffee?",
        ]


@pytest.mark.parametrize("names", ["ga", "beta"])
async def test_barge_in_while_the_model_is_still_generating(tmp_path: Path, names: str) -> None:
    long = say(" ".join(["It is a long story that I could tell for many minutes."] * 8))
    script = AgentScript(
        replies=(long, say("All right.")),
        stragglers=3,
        speed=4.0,
        names="beta" if names == "beta" else "ga",
        hearings=(Hearing("Stop."),),
    )
    agent = "name: x\ninstructions: i\ngreeting: Tell a story.\n" + LISTEN
    async with simulated(script, agent, tmp_path) as (w, realtime):
        caller = Caller(w)
        await until(lambda: len(w.gateway.agent_audio()) >= 4, "some of the story")
        story = w.gateway.agent_audio()[0][0]
        await caller.send(frames(spoken("Stop, please stop now.").ulaw))
        await w.gateway.wait_for("interrupt")
        await w.gateway.positions((story, 321), interrupt_id=1)
        await caller.send([FRAME] * 60)
        await until(lambda: w.gateway.agent_audio()[-1][0] != story, "the answer")
        await w.gateway.close()
        await w.facts.wait_for("session_ended")
        item = realtime.sessions[0].agent_items[0]
        assert item.truncated_ms == 321
        assert item.status == "incomplete"
        generated = w.facts.of("item_generated")[0]
        assert generated.status == fact_pb2.GENERATION_STATUS_CANCELLED
        assert generated.audio_ms == item.generated_ms
        assert bytes(item.audio).startswith(heard_by_gateway(w, story))
        assert len(heard_by_gateway(w, story)) < len(item.audio), "stragglers stayed here"
        assert [f.source.refined for f in w.facts.of("words_timed")] == [False, True]


async def test_the_words_of_what_was_cut_are_aligned(tmp_path: Path) -> None:
    agent = "name: x\ninstructions: i\ngreeting: Quote.\n" + LISTEN
    script = AgentScript(replies=(Reply(bakery().replies[1].parts),))
    async with (
        RealtimeSimulator(script) as realtime,
        worker(agent=agent, directory=tmp_path, realtime=Endpoint(realtime.url), refine=None) as w,
    ):
        await w.gateway.open()
        caller = Caller(w)
        await until(lambda: any(last for *_, last in w.gateway.agent_audio()), "the quote")
        await caller.send(frames(spoken("Stop, please stop now.").ulaw))
        await w.gateway.wait_for("interrupt")
        item = realtime.sessions[0].agent_items[0]
        await w.gateway.positions((item.item_id, 2500), interrupt_id=1)
        # On a busy machine after an estimate, which fills in.
        await until(lambda: w.facts.of("words_timed")[-1:] != [], "word times")
        await until(lambda: w.facts.of("words_timed")[-1].source.refined, "refined word times")
        refined = w.facts.of("words_timed")[-1]
        assert refined.source.method == "aligned"
        errors = [
            abs(word.end_ms - end_ms)
            for word, (_, _, end_ms) in zip(refined.words, item.words, strict=True)
        ]
        assert sorted(errors)[len(errors) // 2] <= 40
        assert await w.metric('asheard_refined_word_times_total{result="refined"}') == 1


async def test_two_overlapping_items_and_one_of_them_never_heard(tmp_path: Path) -> None:
    both = Reply((Speak("Let me have a look."), Speak("We have bagels.")), overlap_items=True)
    agent = "name: x\ninstructions: i\ngreeting: Look.\n" + LISTEN
    async with simulated(AgentScript(replies=(both,)), agent, tmp_path) as (w, realtime):
        caller = Caller(w)
        await until(lambda: sum(last for *_, last in w.gateway.agent_audio()) == 2, "both items")
        first, second = (item.item_id for item in realtime.sessions[0].agent_items)
        await caller.send(frames(spoken("Stop, please stop now.").ulaw))
        await w.gateway.wait_for("interrupt")
        await w.gateway.positions((first, 500), (second, 0), interrupt_id=1)
        await until(lambda: realtime.sessions[0].agent_items[1].deleted, "the deletion")
        assert [i.truncated_ms for i in realtime.sessions[0].agent_items] == [500, None]
        assert realtime.sessions[0].refusals == []
        assert (await w.facts.wait_for("item_deleted")).accepted


async def test_twenty_calls_at_once_each_with_its_own_audio(tmp_path: Path) -> None:
    agent = "name: x\ninstructions: i\n" + LISTEN
    numbers = range(1, 21)
    async with (
        RealtimeSimulator(AgentScript(fallback=say("Yes, of course."))) as realtime,
        worker(agent=agent, directory=tmp_path, realtime=Endpoint(realtime.url)) as w,
    ):
        sent: dict[int, bytearray] = {number: bytearray() for number in numbers}
        for number in numbers:
            await w.gateway.open(number)
        for n in range(50):
            for number in numbers:
                payload = base64.b64encode(bytes([0x80 + number]) * 80 + n.to_bytes(2, "big") * 40)
                sent[number] += base64.b64decode(payload)
                await w.gateway.send_audio(payload, call=number, media_ms=20 * n)
            await asyncio.sleep(0.002)
        began = time.monotonic()
        total = sum(len(audio) for audio in sent.values())
        await until(lambda: sum(len(s.appended) for s in realtime.sessions) >= total, "all audio")
        assert time.monotonic() - began < 10
        for number in numbers:
            await w.gateway.close(number)
        for number in numbers:
            await w.facts.wait_for("session_ended", f"CA{number}")
        got = sorted(bytes(session.appended) for session in realtime.sessions)
        assert got == sorted(bytes(audio) for audio in sent.values())
