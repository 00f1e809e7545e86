"""A visitor's process without a viewer: it answers with what it was told, and with what it is sent."""

import asyncio
import json
import os
import sys

from aiohttp import web

from BoneSAMLib.browser.visitor import PORT_LINE, SECRET_HEADER


async def serve(told):
    async def whoami(request):
        assert request.headers[SECRET_HEADER] == told["secret"]
        return web.json_response({**told, "process": os.getpid(), "query": dict(request.query)})

    async def take(request):
        return web.json_response({"bytes": len(await request.read()), "length": request.content_length})

    async def talk(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await (socket.send_str if isinstance(message.data, str) else socket.send_bytes)(
                message.data[::-1]
            )
        return socket

    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.get("/whoami", whoami), web.post("/take", take), web.get("/ws", talk)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"{PORT_LINE}{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.stdin.readline())))
    os._exit(0)
