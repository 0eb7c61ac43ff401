"""The Realtime socket keeps its promises, at a real server of another library's making."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from runtime.errors import Unavailable
from session.realtime.connection import STALLED_BYTES
from session.realtime.picows_connection import TURN_MESSAGES, connect_picows


async def at(
    handler: Callable[[ServerConnection], Awaitable[None]],
    use: Callable[[str], Awaitable[None]],
) -> None:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with asyncio.timeout(20):
            await use(f"ws://127.0.0.1:{port}/v1/realtime")


async def test_messages_both_ways_in_order_with_the_key_and_the_model() -> None:
    seen: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.path)
        seen.append(socket.request.headers["Authorization"])
        assert "OpenAI-Beta" not in socket.request.headers
        assert "Sec-WebSocket-Extensions" not in socket.request.headers
        await socket.send("before anybody listens")
        async for message in socket:
            assert isinstance(message, str)
            await socket.send(message)
            if message == "99":
                await socket.send(["frag", "men", "ted"])
                return

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="gpt realtime", key="sk-1")
        await asyncio.sleep(0.05)
        for i in range(100):
            connection.send(str(i).encode())
        got: list[bytes] = []
        closed = await connection.run(got.append)
        assert got == [
            b"before anybody listens",
            *(str(i).encode() for i in range(100)),
            b"fragmented",
        ]
        assert closed.code == 1000
        connection.send(b"into the void")
        await connection.close()

    await at(handler, use)
    assert seen == ["/v1/realtime?model=gpt%20realtime", "Bearer sk-1"]


async def test_no_key_is_no_header() -> None:
    headers: list[bool] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        headers.append("Authorization" in socket.request.headers)

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        await connection.run(lambda _: None)

    await at(handler, use)
    assert headers == [False]


@pytest.mark.parametrize(
    ("code", "reason"), [(3000, "invalid_request_error.invalid_api_key"), (1001, "60 minutes")]
)
async def test_a_close_is_reported_with_its_code_and_reason(code: int, reason: str) -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    async def use(url: str) -> None:
        closed = await (await connect_picows(url, model="m", key=None)).run(lambda _: None)
        assert (closed.code, closed.reason) == (code, reason)

    await at(handler, use)


async def test_a_lost_socket_is_1006() -> None:
    async def handler(socket: ServerConnection) -> None:
        socket.transport.abort()

    async def use(url: str) -> None:
        closed = await (await connect_picows(url, model="m", key=None)).run(lambda _: None)
        assert closed.code == 1006

    await at(handler, use)


async def test_we_may_close_it_and_run_returns() -> None:
    codes: list[int | None] = []

    async def handler(socket: ServerConnection) -> None:
        await socket.wait_closed()
        codes.append(socket.close_code)

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        running = asyncio.create_task(connection.run(lambda _: None))
        await asyncio.sleep(0.01)
        await connection.close()
        await running

    await at(handler, use)
    assert codes == [1000]


async def test_nothing_follows_our_close_frame() -> None:
    got: list[str | bytes] = []

    async def handler(socket: ServerConnection) -> None:
        async for message in socket:
            got.append(message)

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        connection.send(b"first")
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        assert not closing.done(), "the server has not answered yet"
        connection.send(b"last")
        await closing
        connection.send(b"into the void")

    await at(handler, use)
    assert got == ["first"]


async def test_a_fault_of_ours_comes_out_of_run() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send("x")
        await socket.wait_closed()

    def fail(_message: bytes) -> None:
        raise ZeroDivisionError

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        with pytest.raises(ZeroDivisionError):
            await connection.run(fail)
        await connection.close()

    await at(handler, use)


async def test_who_cannot_be_reached_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="ASHEARD_REALTIME_URL"):
        await connect_picows("ws://127.0.0.1:1/", model="m", key=None)


@pytest.mark.parametrize(("status", "said"), [(401, "OPENAI_API_KEY"), (500, "HTTP 500")])
async def test_a_refused_handshake_is_unavailable(status: int, said: str) -> None:
    async def handler(socket: ServerConnection) -> None:
        raise AssertionError("never accepted")

    def refuse(socket: ServerConnection, _request: Request) -> Response:
        return socket.respond(status, "no\n")

    async with serve(handler, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(Unavailable, match=said):
            await connect_picows(f"ws://127.0.0.1:{port}/", model="m", key="sk-secret")


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
async def test_a_burst_is_passed_on_in_turns_in_order_and_to_its_end(n: int) -> None:
    """So that other calls have their turns between."""

    async def handler(socket: ServerConnection) -> None:
        messages = [f"{i:05}" for i in range(n)]
        for message in messages:
            socket.protocol.send_text(message.encode())
        socket.protocol.send_close(1000, "")
        # In one write, so that it is one read.
        socket.transport.write(b"".join(socket.protocol.data_to_send()))
        await socket.wait_closed()

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        turn = 0
        got: list[tuple[int, bytes]] = []

        async def count_turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        closed = await connection.run(lambda message: got.append((turn, message)))
        counting.cancel()
        assert [message for _, message in got] == [b"%05d" % i for i in range(n)]
        assert closed.code == 1000
        in_turn = Counter(turn for turn, _ in got)
        assert max(in_turn.values()) <= 2 * TURN_MESSAGES, "two, where a read falls between"

    await at(handler, use)


async def test_a_flood_ends_the_session_with_that_reason() -> None:
    async def handler(socket: ServerConnection) -> None:
        for _ in range(200_000):
            socket.protocol.send_text(b"{")
        socket.transport.write(b"".join(socket.protocol.data_to_send()))
        await socket.wait_closed()

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        closed = await connection.run(lambda _: None)
        assert closed.explain() == "the model sent more events at once than are taken"
        await connection.close()

    await at(handler, use)


async def test_what_waits_when_a_call_ends_is_dropped() -> None:
    async def handler(socket: ServerConnection) -> None:
        for _ in range(1000):
            socket.protocol.send_text(b"{}")
        socket.transport.write(b"".join(socket.protocol.data_to_send()))
        await socket.wait_closed()

    def fail(_message: bytes) -> None:
        raise ZeroDivisionError

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        with pytest.raises(ZeroDivisionError):
            await connection.run(fail)
        await connection.close()

    await at(handler, use)


async def test_a_socket_whose_peer_takes_nothing_is_dropped() -> None:
    async def handler(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await socket.wait_closed()

    async def use(url: str) -> None:
        connection = await connect_picows(url, model="m", key=None)
        running = asyncio.create_task(connection.run(lambda _: None))
        second = b"A" * 10_667
        sent = 0
        while not running.done():
            connection.send(second)
            sent += len(second)
            await asyncio.sleep(0)
            assert sent < 64 * STALLED_BYTES, "what the system takes is a few MiB"
        assert sent > STALLED_BYTES
        assert running.result().code == 1006

    await at(handler, use)
