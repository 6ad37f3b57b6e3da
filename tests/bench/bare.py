"""The least that an aiohttp server can do with a delivery: read it, and say that it is accepted. The baseline.

`python -m tests.bench.bare PORT`
"""

import sys

import uvloop
from aiohttp import web

from service.local.ports import LOOPBACK

ANSWER = b'{"status":"accepted","id":"evt_1SimulatedEvent00000000"}'


async def handle(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


def main() -> None:
    app = web.Application(client_max_size=1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handle)
    port = int(sys.argv[1])
    web.run_app(app, host=LOOPBACK, port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
