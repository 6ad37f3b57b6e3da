"""The bodies that are being read, bounded in number and in bytes: nobody has shown yet that they are Stripe's."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.errors import BodyTooSlow, Overloaded


@dataclass(eq=False, slots=True)
class _Reader:
    size: int
    timeout: asyncio.Timeout
    sent_away: bool = False


class Reading:
    """Room for so many bodies and bytes. Where there is none, the one that is read for longest has to go.

    A body of Stripe's comes with its headers, so who is here longest is slowest: however many slow bodies there are,
    they send each other away, and keep no quick one out.
    """

    def __init__(self, *, bodies_max: int, bytes_max: int) -> None:
        self._bodies_max = bodies_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._readers: OrderedDict[_Reader, None] = OrderedDict()

    @asynccontextmanager
    async def body(self, size: int, *, until: float) -> AsyncIterator[None]:
        """Read a body of at most `size` bytes inside the block, until then on the event loop's clock.

        Raises `BodyTooSlow`, and `Overloaded` where it had to make room.
        """
        while self._readers and (len(self._readers) >= self._bodies_max or self._bytes + size > self._bytes_max):
            self._send_away(next(iter(self._readers)))
        reader = _Reader(size, asyncio.timeout_at(until))
        self._readers[reader] = None
        self._bytes += size
        try:
            async with reader.timeout:
                yield
        except TimeoutError:
            if reader.sent_away:
                raise Overloaded("too many bodies are being read, and this is the slowest") from None
            raise BodyTooSlow("the body did not come in time") from None
        finally:
            self._forget(reader)

    def _send_away(self, reader: _Reader) -> None:
        self._forget(reader)
        if not reader.timeout.expired():
            reader.sent_away = True
            reader.timeout.reschedule(asyncio.get_running_loop().time())

    def _forget(self, reader: _Reader) -> None:
        if reader in self._readers:
            del self._readers[reader]
            self._bytes -= reader.size
