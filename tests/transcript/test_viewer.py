"""The viewer, as a browser gets it (integration)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest

from asheard.v1.transcript_pb2 import Heard, Role, Transcript, Turn, Word
from tests.transcript.call_facts import START_S, short_call, troubled_call
from tests.transcript.running_server import Client, running
from transcript import pages, viewer

Browser = aiohttp.ClientSession


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    # Cookies of an address, too: that is where tests run.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


def at(client: Client, path: str) -> str:
    return f"http://127.0.0.1:{client.server.viewer.port}{path}"


class _Read(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.struck: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.tags[-1] == "s":
            self.struck.append(data)
            self.tags.append("")


async def test_a_call_is_found_in_the_list_and_read(client: Client, browser: Browser) -> None:
    await client.append(short_call("CA1", text="Hello there."))
    async with browser.get(at(client, "/")) as response:
        listing = _Read(await response.text())
    assert "+15550100" in listing.text
    assert "completed" in listing.text
    assert "2026-11-23 10:00:00" in listing.text
    assert "/calls/CA1" in listing.links
    async with browser.get(at(client, "/calls/CA1")) as response:
        page = await response.text()
    assert "Hello there." in _Read(page).text
    assert "1.0 of 1.0 s heard" in page
    assert "http-equiv" not in page  # final: nothing to reload for


async def test_a_call_under_way_reloads_itself(client: Client, browser: Browser) -> None:
    await client.append(short_call("CA1", ended=False))
    async with browser.get(at(client, "/calls/CA1")) as response:
        assert '<meta http-equiv="refresh" content="2">' in await response.text()


async def test_the_list_goes_on_to_older_calls(client: Client, browser: Browser) -> None:
    for n in range(51):
        await client.append(short_call(f"CA{n:03}", start_s=START_S + n))
    async with browser.get(at(client, "/")) as response:
        first = _Read(await response.text())
    assert "/calls/CA050" in first.links
    assert "/calls/CA000" not in first.links
    async with browser.get(at(client, next(link for link in first.links if "before" in link))) as r:
        assert "/calls/CA000" in _Read(await r.text()).links
    async with browser.get(at(client, "/?before=nonsense")) as response:
        assert response.status == 400


async def test_an_unknown_call_is_said_to_be(client: Client, browser: Browser) -> None:
    async with browser.get(at(client, "/calls/CA404")) as response:
        assert response.status == 404
        assert "no such call" in await response.text()


async def test_what_strangers_say_is_never_markup(client: Client, browser: Browser) -> None:
    attack = "<script>alert(1)</script> & <img src=x onerror=alert(1)> \"'"
    await client.append(short_call("CA<b>", from_number="<b>+1</b>", text=attack))
    for path in ("/", "/calls/CA%3Cb%3E"):
        async with browser.get(at(client, path)) as response:
            assert response.status == 200
            page = _Read(await response.text())
            policy = response.headers["Content-Security-Policy"]
        assert not {"script", "img"} & set(page.tags)
        assert "<b>+1</b>" in page.text
        assert "default-src 'none'" in policy
    assert " ".join(attack.split()) in page.text


async def test_with_tokens_one_signs_in_once(tmp_path: Path, browser: Browser) -> None:
    async with running(tmp_path / "facts.db", tokens=["secret"]) as client:
        await client.append(short_call("CA1"))
        async with browser.get(at(client, "/")) as response:
            assert response.url.path == "/login"
        async with browser.post(at(client, "/login"), data={"token": "wrong"}) as response:
            assert response.status == 401
            assert "Set-Cookie" not in response.headers
        async with browser.post(
            at(client, "/login"), data={"token": "secret"}, allow_redirects=False
        ) as response:
            cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "secret" not in cookie
        async with browser.get(at(client, "/calls/CA1")) as response:
            assert response.status == 200
            assert response.url.path == "/calls/CA1"


async def test_who_may_only_delete_sees_nothing(tmp_path: Path, browser: Browser) -> None:
    async with running(tmp_path / "facts.db", tokens=["eraser:delete"]) as client:
        async with browser.post(at(client, "/login"), data={"token": "eraser"}) as response:
            assert response.status == 401
        headers = {"Authorization": "Bearer eraser"}
        async with browser.get(at(client, "/"), headers=headers) as response:
            assert response.status == 403
            assert "read" in await response.text()


async def test_machines_bring_their_token(tmp_path: Path, browser: Browser) -> None:
    async with running(tmp_path / "facts.db", tokens=["secret"]) as client:
        for token, status in (("secret", 200), ("wrong", 401)):
            headers = {"Authorization": f"Bearer {token}"}
            async with browser.get(at(client, "/"), headers=headers) as response:
                assert response.status == status


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.9"},  # through a tunnel that ends on this machine
        {"Forwarded": "for=203.0.113.9"},
        {"Host": "[127.0.0.1"},
        {"Host": "viewer.example.com"},  # a foreign page, with its name made to point here
    ],
)
async def test_without_tokens_loopback_means_this_machine(
    client: Client, browser: Browser, headers: dict[str, str]
) -> None:
    async with browser.get(at(client, "/"), headers=headers) as response:
        assert response.status == 403
        assert "ASHEARD_API_TOKENS" in await response.text()


def test_unheard_words_are_struck_out_and_partial_ones_marked() -> None:
    words = [
        Word(text="Cash", heard=Heard.HEARD_FULL, played_share=1),
        Word(text="or", heard=Heard.HEARD_PARTIAL, played_share=0.625, uncertain=True),
        Word(text="credit?", heard=Heard.HEARD_NONE),
        Word(text="Now", heard=Heard.HEARD_NONE),
    ]
    turn = Turn(role=Role.ROLE_AGENT, words=words, interrupted=True, heard_audio_ms=900,
                generated_audio_ms=2000, start_ms=61_500)  # fmt: skip
    page = pages.transcript(Transcript(call_sid="CA1", turns=[turn]))
    assert 'Cash <u title="62 % of it was played, uncertain">or</u> <s>credit? Now</s>' in page
    assert "1:01.5 · 0.9 of 2.0 s heard · interrupted" in page


async def test_silences_notices_and_reasons_are_shown(client: Client, browser: Browser) -> None:
    await client.append(troubled_call())
    async with browser.get(at(client, "/calls/CA1")) as response:
        page = await response.text()
    shown = [
        "Are you open?",
        "<p class=silence>0:02.0 · 5.0 s of silence: the model refused or failed</p>",
        "0:07.0 · 1.0 of 1.0 s heard · notice: said by asheard, not by the model",
        "One moment, please.",
        "1.0 of 1.0 s heard · incomplete: content_filter",
        "<i>could not be transcribed</i>",
    ]
    assert [page.count(text) for text in shown] == [1] * len(shown)
    assert sorted(shown, key=page.index) == shown
    assert "not transcribed" not in page  # where nobody spoke


def test_a_tool_and_a_silent_caller_are_shown() -> None:
    turns = [
        Turn(role=Role.ROLE_TOOL, generated_text='quote({"items": ["<b>"]})'),
        Turn(role=Role.ROLE_CALLER, start_ms=100),
    ]
    page = pages.transcript(Transcript(call_sid="CA1", turns=turns))
    assert "<code>quote({&quot;items&quot;: [&quot;&lt;b&gt;&quot;]})</code>" in page
    assert "<i>not transcribed</i>" in page


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded; charset=klingon", b"token=x"),
        ("application/x-www-form-urlencoded", b"token=\xff\xfe%ff"),
        ("multipart/form-data", b"token"),
    ],
)
async def test_a_form_that_cannot_be_read_is_said_to_be_so(
    client: Client, browser: Browser, content_type: str, body: bytes
) -> None:
    headers = {"Content-Type": content_type}
    async with browser.post(at(client, "/login"), data=body, headers=headers) as response:
        assert response.status in (400, 401)
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_connections_beyond_the_bound_are_refused(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "MAX_CONNECTIONS", 3)
    async with running(tmp_path / "facts.db") as client:
        port = client.server.viewer.port
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        async with browser.get(at(client, "/")) as response:
            assert response.status == 503
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(20):
            while True:
                async with browser.get(at(client, "/")) as response:
                    if response.status == 200:
                        break
                await asyncio.sleep(0.05)
