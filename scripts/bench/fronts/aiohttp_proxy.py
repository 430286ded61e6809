"""A reverse proxy as one writes it with aiohttp: `aiohttp_proxy.py SOCKET PORT`."""

from __future__ import annotations

import json
import sys

import uvloop
from aiohttp import ClientSession, UnixConnector, web

DROPPED = (
    "transfer-encoding",
    "content-length",
    "connection",
    "date",
    "server",
    "content-encoding",
)


async def relay(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    json.loads(body)  # as a gateway must, to find the model
    session: ClientSession = request.app["session"]
    headers = {"content-type": "application/json"}
    async with session.post("http://child" + request.path_qs, data=body, headers=headers) as answer:
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in DROPPED}
        response = web.StreamResponse(status=answer.status, headers=kept)
        response.content_length = answer.content_length
        await response.prepare(request)
        async for chunk, _ in answer.content.iter_chunks():
            await response.write(chunk)
        await response.write_eof()
        return response


async def application(path: str) -> web.Application:
    made = web.Application(client_max_size=1 << 30)
    made["session"] = ClientSession(connector=UnixConnector(path, limit=0), auto_decompress=False)
    made.on_cleanup.append(lambda app: app["session"].close())
    made.router.add_route("*", "/{path:.*}", relay)
    return made


if __name__ == "__main__":
    uvloop.install()
    web.run_app(
        application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), print=None, backlog=2048
    )
