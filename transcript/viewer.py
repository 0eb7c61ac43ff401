"""The call viewer: plain pages for people, beside the API for machines.

A list of calls, and a call with the words that nobody heard struck out. No script runs in it and
nothing is loaded from elsewhere, which the content security policy enforces: transcripts hold what
strangers said on the telephone. A call that is under way reloads every two seconds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from runtime.config import Address, is_loopback
from runtime.errors import ConfigurationError, NotFound, Unavailable
from runtime.http import BODY_S, HttpPort, descriptor_bound
from runtime.url import split_url
from transcript import pages
from transcript.access import Access, PermissionDenied, Unauthenticated
from transcript.calls import Calls
from transcript.facts import is_call_sid
from transcript.joined import JoinFailed
from transcript.store import CallQuery, Cursor, start_us

PASS_COOKIE = "asheard_pass"
PASS_DAYS = 30
PAGE_CALLS = 50

MAX_CONNECTIONS = 256
"""People who look, with some connections each of a browser's."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Viewer:
    """Serves the pages.

    Args:
        address: Where to listen; port 0 lets the system choose.
        calls: What to show.
        access: Who may look.
    """

    def __init__(self, address: Address, calls: Calls, access: Access) -> None:
        self._calls = calls
        self._access = access
        self._style = Path(__file__).with_name("viewer.css").read_text("utf-8")
        app = web.Application(middlewares=[self._guard], client_max_size=4096)
        app.router.add_get("/", self._list)
        app.router.add_get("/calls/{call_sid}", self._call)
        app.router.add_get("/viewer.css", self._css)
        app.router.add_get("/login", self._login_form)
        app.router.add_post("/login", self._login)
        self._http = HttpPort(
            app,
            address,
            called=f"ASHEARD_VIEWER_LISTEN={address}",
            max_connections=min(MAX_CONNECTIONS, descriptor_bound() // 3),
        )

    @property
    def port(self) -> int:
        """The port it listens at, once started."""
        return self._http.port

    async def start(self) -> None:
        """Open the port.

        Raises:
            ConfigurationError: The address cannot be listened at.
        """
        await self._http.start()

    async def close(self) -> None:
        """Close the port."""
        await self._http.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Admit, answer, and put the same headers on everything."""
        try:
            if request.path not in ("/login", "/viewer.css"):
                self._admit(request)
            response = await handler(request)
        except Unauthenticated:
            if "Authorization" in request.headers:
                response = _page(pages.message("Not a valid token."), status=401)
            else:
                response = web.Response(status=303, headers={"Location": "/login"})
        except PermissionDenied as error:
            response = _page(pages.message(f"{error}."), status=403)
        except NotFound:
            response = _page(pages.message("There is no such call."), status=404)
        except (Unavailable, ConfigurationError):
            response = _page(pages.message("The store does not answer. Try again."), status=503)
        except JoinFailed:
            response = _page(pages.message("A fault of ours: the log knows more."), status=500)
        except web.HTTPException as error:
            response = _page(pages.message(error.reason), status=error.status)
        response.headers.update(_HEADERS)
        return response

    def _admit(self, request: web.Request) -> None:
        if self._access.by_token:
            given = request.cookies.get(PASS_COOKIE, "")
            if given and self._access.knows_pass(given):
                return
            self._access.admit(request.headers.get("Authorization"), "")
            return
        # On loopback a request may still come from afar: through a proxy or a tunnel on this
        # machine, or from a foreign page whose name was made to point here.
        named = split_url(f"//{request.host}")
        host = (named.hostname if named is not None else None) or ""
        direct = "X-Forwarded-For" not in request.headers and "Forwarded" not in request.headers
        peer = request.remote or ""
        self._access.admit(None, peer if direct and is_loopback(host) else "")

    async def _list(self, request: web.Request) -> web.Response:
        after = _cursor(request.query.get("before", ""))
        query = CallQuery(limit=PAGE_CALLS + 1, after=after)
        calls = await self._calls.list(query)
        page = calls[:PAGE_CALLS]
        older = ""
        if len(calls) > len(page):
            older = f"{start_us(page[-1])}.{page[-1].call_sid}"
        return _page(pages.calls(page, older=older))

    async def _call(self, request: web.Request) -> web.Response:
        call_sid = request.match_info["call_sid"]
        if not is_call_sid(call_sid):
            raise NotFound(call_sid)
        transcript = await self._calls.get(call_sid)
        return _page(pages.transcript(transcript))

    async def _css(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._style, content_type="text/css")

    async def _login_form(self, _request: web.Request) -> web.Response:
        return _page(pages.login())

    async def _login(self, request: web.Request) -> web.Response:
        token = await _posted_token(request)
        if not isinstance(token, str) or not self._access.may_read(token.strip()):
            return _page(pages.login(wrong=True), status=401)
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            PASS_COOKIE,
            self._access.issue_pass(token.strip()),
            max_age=PASS_DAYS * 86400,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response


async def _posted_token(request: web.Request) -> object:
    """What the form of the login page gave.

    Raises:
        HTTPException: It cannot be read, or does not come in time.
    """
    try:
        async with asyncio.timeout(BODY_S):
            return (await request.post()).get("token", "")
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    except (ValueError, LookupError) as error:  # a charset, an encoding or a form that is none
        raise web.HTTPBadRequest from error


def _cursor(value: str) -> Cursor | None:
    start, dot, call_sid = value.partition(".")
    if not value:
        return None
    known = re.fullmatch("[0-9]{1,19}", start) and int(start) < 1 << 63 and is_call_sid(call_sid)
    if not dot or not known:
        raise web.HTTPBadRequest(reason="before: follow the link of the page before")
    return Cursor(int(start), call_sid)


def _page(html: str, status: int = 200) -> web.Response:
    return web.Response(text=html, content_type="text/html", status=status)
