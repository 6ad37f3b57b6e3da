"""What Stripe sends while an alert is tried: signed events of payments, steadily, each its own; and how to spoil them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import aiohttp
import orjson

from service.events import Secret
from service.signature import sign
from service.simulator.events import sample
from service.simulator.objects import Object
from tests.support.deployment import TEST_SECRET

IN_FLIGHT_MAX = 200
ANSWER_SECONDS_MAX = 20.0
_BLOCKS = count(0, 1_000_000)


def payment(number: int) -> Object:
    """A payment that has just succeeded."""
    return sample("payment_intent.succeeded", seed=number, created=int(time.time()))


@dataclass
class Traffic:
    """Deliveries, so many a second, one after the other or side by side as they come; what they are may be changed."""

    url: str
    per_second: float = 10.0
    secret: Secret = TEST_SECRET
    signed_seconds_ago: int = 0
    event: Callable[[int], Object] = payment
    answers: Counter[int] = field(default_factory=Counter)
    """By HTTP status; 0 where the connection was lost, or nothing was answered in time."""
    _sent: int = field(default_factory=lambda: next(_BLOCKS))
    """Each sender has numbers, and so events, of its own."""

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(ANSWER_SECONDS_MAX)
            ) as session,
            asyncio.TaskGroup() as flying,
        ):
            under_way: set[asyncio.Task[None]] = set()
            due = loop.time()
            while True:
                due = max(due + 1 / self.per_second, loop.time() - 1) if self.per_second else loop.time() + 0.1
                await asyncio.sleep(max(0.0, due - loop.time()))
                if self.per_second and len(under_way) < IN_FLIGHT_MAX:
                    self._sent += 1
                    task = flying.create_task(self._deliver(session, self.event(self._sent)))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)

    async def _deliver(self, session: aiohttp.ClientSession, event: Object) -> None:
        body = orjson.dumps(event)
        headers = {"Stripe-Signature": sign(body, self.secret, int(time.time()) - self.signed_seconds_ago)}
        try:
            async with session.post(self.url, data=body, headers=headers) as response:
                await response.read()
                self.answers[response.status] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.answers[0] += 1
