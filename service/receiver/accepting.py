"""Connections, bounded: each costs a descriptor and some memory before its first byte."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

CONNECTIONS_MAX: Final = 4_096
DESCRIPTORS_KEPT: Final = 128
"""For everything that is no public connection: Kafka's, the dedupe store's, the admin side's, files."""
CONNECTIONS_MIN: Final = 64

_REFUSAL_BODY: Final = b'{"error":"overloaded","detail":"too many connections are open"}'
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)


def connections_max(open_files: int) -> int:
    """How many connections a process with so many descriptors can take and still do its work."""
    return min(CONNECTIONS_MAX, max(CONNECTIONS_MIN, open_files - DESCRIPTORS_KEPT))


def accepting(runner: web.AppRunner, *, most: int, refused: Callable[[], None]) -> Callable[[], asyncio.Protocol]:
    """A factory for `loop.create_server`: the server's protocols up to `most` open connections, refusals beyond.

    The runner must be set up.
    """
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")

    def accept() -> asyncio.Protocol:
        if len(server.connections) < most:
            return server()
        refused()
        return _Refusal()

    return accept


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writable = cast(asyncio.Transport, transport)
        writable.write(_REFUSAL)
        writable.close()
