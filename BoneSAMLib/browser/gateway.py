"""The door of the viewer: checks the token of the address, and leads each visitor to a process of its own."""

import asyncio
import contextlib
import hmac
import html
import secrets
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from BoneSAMLib.browser.visitor import SECRET_HEADER, Visitor, VisitorTask

__all__ = ["Gateway", "GatewaySettings"]

_CHUNK = 1 << 16
_FIRST_PAGE = 300.0  # seconds for making the scene and loading the page, on a busy machine too
# Belong to one connection, not to what is sent over it.
_HOP_BY_HOP = {
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
}
# The page's templates are compiled in the browser, hence unsafe-eval; nothing comes from elsewhere.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
        "'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
        "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>BoneSAM</title>{head}
<style>body{{background:#15171a;color:#e8e9eb;font:16px/1.5 system-ui,sans-serif;display:grid;margin:0;
place-items:center;height:100vh}}main{{max-width:34em;padding:2em;text-align:center}}a{{color:#6cb6ff}}i{{display:block;
width:34px;height:34px;margin:0 auto 1em;border:3px solid #3a4048;border-top-color:#6cb6ff;border-radius:50%;
animation:t 1s linear infinite}}@keyframes t{{to{{transform:rotate(1turn)}}}}</style></head>
<body><main>{body}</main></body></html>"""


@dataclass(frozen=True)
class GatewaySettings:
    """How the viewer is served.

    Attributes:
        task: what every visitor starts with.
        host: address to listen at.
        port: 0 for any that is free.
        visitors: how many at once; each takes some hundred megabytes.
        grace: seconds until a visitor whose page is closed is forgotten; until then it can be loaded again.
    """

    task: VisitorTask
    host: str = "127.0.0.1"
    port: int = 8765
    visitors: int = 4
    grace: float = 20.0


class Gateway:
    """Serves until it is stopped.

    Args:
        settings: how.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._token = secrets.token_urlsafe(24)
        self._visitors: dict[str, Visitor] = {}
        self._spare: Visitor | None = None
        self._endings: dict[str, asyncio.TimerHandle] = {}
        self._sockets: dict[str, int] = {}
        self._client: Any = None
        self._closing: set[asyncio.Task[None]] = set()

    async def serve(self, on_ready: Callable[[str], None], stopped: asyncio.Event | None = None) -> None:
        """Serve until `stopped` is set, or the process is told to end.

        Args:
            on_ready: called with the address once it can be opened.
            stopped: None for Ctrl-C and SIGTERM.

        Raises:
            OSError: the port is taken, or the host is none of this machine.
        """
        if stopped is None:
            stopped = _stopped_by_signals()
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/{token}/", self._welcome)
        app.router.add_route("*", "/{token}/{visitor}/{tail:.*}", self._forward)
        app.on_response_prepare.append(_add_headers)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._settings.host, self._settings.port, shutdown_timeout=1.0)
            await site.start()
            self._client = aiohttp.ClientSession(
                auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None, connect=10)
            )
            # The first page is then there at once: a scene and its views take seconds to make.
            self._spare = Visitor(self._settings.task)
            await self._spare.start()
            host = self._settings.host
            port = runner.addresses[0][1]
            on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/{self._token}/")
            await stopped.wait()
        finally:
            visitors = [*self._visitors.values(), *([self._spare] if self._spare is not None else [])]
            self._visitors.clear()
            for ending in self._endings.values():
                ending.cancel()
            await asyncio.gather(*(visitor.end() for visitor in visitors), *self._closing)
            if self._client is not None:
                await self._client.close()
            await runner.cleanup()

    @web.middleware
    async def _guarded(self, request: Any, handler: Any) -> Any:
        token = request.match_info.get("token", "")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return _page("<p>Open the address that <code>bonesam view</code> printed.</p>", status=404)
        return await handler(request)

    async def _welcome(self, request: Any) -> Any:
        """Somebody opened the address."""
        visitor, self._spare = self._spare, None
        if visitor is not None and not visitor.is_running:
            await visitor.end()
            visitor = None
        if visitor is None:
            if len(self._visitors) >= self._settings.visitors:
                text = f"All {self._settings.visitors} places are taken. Try again when somebody has left."
                return _page(f"<p>{text}</p>", status=503)
            visitor = Visitor(self._settings.task)
            await visitor.start()
        self._visitors[visitor.identifier] = visitor
        self._wait_for(visitor)
        raise web.HTTPFound(f"{visitor.identifier}/")

    async def _forward(self, request: Any) -> Any:
        identifier = request.match_info["visitor"]
        visitor = self._visitors.get(identifier)
        if visitor is None or not visitor.is_running:
            await self._forget(identifier)
            again = f'<p><a href="/{html.escape(self._token)}/">Start a new one</a></p>'
            return _page(f"<p>This session has ended, and what was in it is gone.</p>{again}", status=410)
        self._wait_for(visitor)
        if visitor.port is None:
            refresh = '<meta http-equiv="refresh" content="1">'
            return _page("<i></i><p>Preparing the views...</p>", head=refresh, status=200)
        url = f"http://127.0.0.1:{visitor.port}/{request.match_info['tail']}"
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._forward_socket(request, visitor, url)
        headers = _end_to_end(request.headers) | {SECRET_HEADER: visitor.secret}
        if request.content_length is not None and request.can_read_body:
            headers["Content-Length"] = str(request.content_length)
        body = request.content.iter_chunked(_CHUNK) if request.can_read_body else None
        try:
            async with self._client.request(
                request.method, url, params=request.query, headers=headers, data=body, allow_redirects=False
            ) as answer:
                response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
                await response.prepare(request)
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientError:
            return web.Response(status=502, text="The viewer did not answer.")

    async def _forward_socket(self, request: Any, visitor: Visitor, url: str) -> Any:
        outer = web.WebSocketResponse(max_msg_size=0, compress=False, heartbeat=30)
        await outer.prepare(request)
        self._arrived(visitor)
        try:
            async with self._client.ws_connect(
                url, headers={SECRET_HEADER: visitor.secret}, max_msg_size=0, compress=0
            ) as inner:
                pumps = [asyncio.create_task(_pump(*ends)) for ends in ((outer, inner), (inner, outer))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except aiohttp.ClientError:
            pass
        finally:
            self._left(visitor)
            with contextlib.suppress(Exception):
                await outer.close()
        return outer

    def _arrived(self, visitor: Visitor) -> None:
        """A page is connected."""
        visitor.was_connected = True
        self._sockets[visitor.identifier] = self._sockets.get(visitor.identifier, 0) + 1
        ending = self._endings.pop(visitor.identifier, None)
        if ending is not None:
            ending.cancel()

    def _left(self, visitor: Visitor) -> None:
        """A page is no longer connected."""
        self._sockets[visitor.identifier] = self._sockets.get(visitor.identifier, 1) - 1
        self._wait_for(visitor)

    def _wait_for(self, visitor: Visitor) -> None:
        """Unless a page is connected, or connects soon, the visitor is forgotten."""
        identifier = visitor.identifier
        if self._sockets.get(identifier, 0) > 0 or identifier not in self._visitors:
            return
        former = self._endings.pop(identifier, None)
        if former is not None:
            former.cancel()
        seconds = self._settings.grace if visitor.was_connected else _FIRST_PAGE
        self._endings[identifier] = asyncio.get_running_loop().call_later(seconds, self._end, identifier)

    def _end(self, identifier: str) -> None:
        task = asyncio.get_running_loop().create_task(self._forget(identifier))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _forget(self, identifier: str) -> None:
        ending = self._endings.pop(identifier, None)
        if ending is not None:
            ending.cancel()
        self._sockets.pop(identifier, None)
        visitor = self._visitors.pop(identifier, None)
        if visitor is not None:
            await visitor.end()


async def _pump(source: Any, sink: Any) -> None:
    async for message in source:
        if message.type == aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type == aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


async def _add_headers(_request: Any, response: Any) -> None:
    for name, value in _HEADERS.items():
        response.headers[name] = value


def _page(body: str, head: str = "", status: int = 200) -> Any:
    return web.Response(text=_PAGE.format(head=head, body=body), content_type="text/html", status=status)


def _stopped_by_signals() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stopped.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    return stopped
