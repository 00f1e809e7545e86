"""The program of one visitor: python -m BoneSAMLib.browser.visitor_process

Started by the gateway, which says on standard input what it needs to know, and ends it by closing that.
"""

import asyncio
import hmac
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from aiohttp import web

from BoneSAMLib.browser.visitor import PORT_LINE, SECRET_HEADER

__all__ = ["main"]


def main() -> None:
    """Serve one visitor at a port of this machine until standard input is closed."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    told = json.loads(sys.stdin.readline())
    asyncio.run(_serve(told))
    # Worker threads may still be computing; nobody waits for them any more.
    os._exit(0)


async def _serve(told: dict[str, Any]) -> None:
    # They take seconds to import: only where they are needed.
    from trame.app import get_server

    from BoneSAMLib.browser.viewer import Viewer

    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    threading.Thread(target=_wait_for_end, args=(loop, stopped), daemon=True).start()
    server = get_server("BoneSAM", client_type="vue3")
    scan, mask = (None if told[name] is None else Path(told[name]) for name in ("scan", "mask"))
    viewer = Viewer(server, Path(told["folder"]), told["upload_limit"])

    def bind(wslink_server: Any) -> None:
        wslink_server.app.middlewares.append(_guard(told["secret"]))
        viewer.add_routes(wslink_server.app)

    def ready(**_: Any) -> None:
        sys.stdout.write(f"{PORT_LINE}{server.port}\n")
        sys.stdout.flush()
        viewer.start(scan, mask)

    server.controller.on_server_bind.add(bind)
    server.controller.on_server_ready.add(ready)
    serving = asyncio.ensure_future(
        server.start(
            exec_mode="coroutine",
            host="127.0.0.1",
            port=0,
            open_browser=False,
            show_connection_info=False,
            disable_logging=True,
            timeout=0,
            thread=True,
        )
    )
    waiting = asyncio.ensure_future(stopped.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    viewer.close()


def _guard(secret: str) -> Any:
    @web.middleware
    async def guarded(request: Any, handler: Any) -> Any:
        if not hmac.compare_digest(request.headers.get(SECRET_HEADER, "").encode(), secret.encode()):
            raise web.HTTPForbidden
        return await handler(request)

    return guarded


def _wait_for_end(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    while sys.stdin.read(1024):
        pass
    loop.call_soon_threadsafe(stopped.set)


if __name__ == "__main__":
    main()
