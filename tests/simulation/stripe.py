"""Stripe as documented: at least once, in no order, for days, signed anew at each attempt; and somebody who is not."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from service.events import Endpoint, Secret
from service.signature import sign
from service.simulator.events import DAY, render
from service.simulator.stripe_sender import LIVE_RETRY_SECONDS, SANDBOX_RETRY_SECONDS, TIMEOUT_SECONDS
from tests.simulation.faults import Fault
from tests.simulation.history import Attempt
from tests.simulation.loop import EPOCH
from tests.simulation.processes import ReceiverProcess
from tests.simulation.stories import Told
from tests.simulation.twins import Site

HOURLY: Final = (3_600,) * 72
"""What Stripe did once, and what some integrations still ask for."""


class Stripe:
    """Delivers a story's events to endpoints. `deliveries` are the coroutines to run until all of them are over."""

    def __init__(
        self,
        site: Site,
        receivers: Sequence[ReceiverProcess],
        *,
        live: bool,
        endpoints: Sequence[Endpoint],
        stranger: Endpoint,
    ) -> None:
        self._site = site
        self._receivers = receivers
        self._endpoints = endpoints
        self._stranger = stranger
        """An endpoint of the other mode: what comes to it is verified, and no event of its own."""
        chance = site.chaos.chance
        self.pauses: Sequence[float] = SANDBOX_RETRY_SECONDS
        """Between the automatic attempts."""
        if live:
            self.pauses = HOURLY if chance.random() < 0.2 else LIVE_RETRY_SECONDS
        self._disorder = chance.choice((0.05, 2.0, 60.0))
        self.accepted: set[str] = set()
        """Events that an endpoint of their own mode has taken."""
        self.signed: set[tuple[str, str]] = set()
        """(SHA-256 of the body, endpoint) of all that was genuinely sent."""

    def deliveries(self, events: Sequence[Told]) -> list[Awaitable[None]]:
        """All that is sent because of these events."""
        chaos, chance = self._site.chaos, self._site.chaos.chance
        first, second = self._endpoints
        planned: list[Awaitable[None]] = []
        for told in events:
            body = render(told.event)
            planned.append(self._deliver(told, body, first, chance.expovariate(1 / self._disorder)))
            if chaos.strikes(Fault.TWO_ENDPOINTS):
                planned.append(self._deliver(told, body, second, chance.expovariate(1 / self._disorder)))
            if chaos.strikes(Fault.SENT_TWICE):
                planned.append(self._once(told, body, first, chance.uniform(0, 0.05)))
            if chaos.strikes(Fault.RESENT):
                planned.append(
                    self._once(
                        told,
                        body,
                        first,
                        chance.choice((chance.uniform(0, 40), chance.uniform(40, 7_200), chance.uniform(0, 30 * DAY))),
                    )
                )
            if chaos.strikes(Fault.RESENT_OFTEN):
                planned.append(self._insist(told, body, 0.0))
            if chaos.strikes(Fault.WRONG_MODE):
                planned.append(self._deliver(told, body, self._stranger, chance.expovariate(1 / self._disorder)))
            if chaos.strikes(Fault.MALFORMED):
                planned.append(self._malformed(told, body, chance.random()))
            if chaos.strikes(Fault.FORGED):
                planned.append(self._forged(told, chance.choice(("secret", "unsigned", "replay", "body"))))
        return planned

    async def _deliver(self, told: Told, body: bytes, endpoint: Endpoint, delay: float) -> None:
        """Until it is taken, or the schedule is over."""
        site = self._site
        await asyncio.sleep(told.at + delay)
        for pause in (*self.pauses, None):
            if await self._attempt(told.event_id, body, endpoint):
                if endpoint is not self._stranger:
                    self.accepted.add(told.event_id)
                return
            if site.chaos.strikes(Fault.RESENT):
                # Somebody sees it fail. What comes of it does not stop the automatic attempts.
                await self._once(told, body, endpoint, site.loop.time() - told.at + site.chaos.chance.uniform(0.1, 25))
            if site.chaos.strikes(Fault.RESENT_OFTEN):
                await self._insist(told, body, site.loop.time() - told.at)
            if pause is not None:
                await asyncio.sleep(pause * site.chaos.chance.uniform(0.9, 1.1))
        site.history.tell("stripe", f"gives {told.event_id} up at {endpoint.name}")
        site.history.given_up[told.event_id] = site.loop.time()

    async def _once(self, told: Told, body: bytes, endpoint: Endpoint, delay: float) -> None:
        """Somebody resends it; the automatic attempts go on."""
        await asyncio.sleep(told.at + delay)
        if await self._attempt(told.event_id, body, endpoint):
            self.accepted.add(told.event_id)

    async def _insist(self, told: Told, body: bytes, begin: float) -> None:
        """Somebody presses the button again and again, to either endpoint; or has a script for it."""
        chance = self._site.chaos.chance
        times, seconds = (chance.randint(3, 8), 90) if chance.random() < 0.8 else (30, 240)
        again = [
            self._once(told, body, chance.choice(self._endpoints), begin + chance.uniform(0.1, seconds))
            for _ in range(times)
        ]
        await asyncio.gather(*again)

    async def _malformed(self, told: Told, body: bytes, which: float) -> None:
        """Stripe signs something that is no event, and sends it until it is taken."""
        broken = body[: len(body) // 2] if which < 0.5 else body.replace(b'"object": "event"', b'"object": "list"', 1)
        name = hashlib.sha256(broken).hexdigest()
        await asyncio.sleep(told.at)
        for pause in (*self.pauses, None):
            if await self._attempt(name, broken, self._endpoints[0]) or pause is None:
                return
            await asyncio.sleep(pause)

    async def _forged(self, told: Told, how: str) -> None:
        """An attacker knows the address, the form and an old delivery, and no secret."""
        endpoint = self._endpoints[0]
        secret = endpoint.secrets[0]
        await asyncio.sleep(told.at)
        now = self._now()
        forged_id = f"evt_forged{len(self._site.history.attempts)}"
        body = render({**told.event, "id": forged_id})
        signature: str | None
        match how:
            case "secret":
                signature = sign(body, Secret("whsec_guessed"), now)
            case "unsigned":
                signature = None
            case "replay":
                # Of bytes that never came, and older than any clock is wrong: an answer of 200 could only be a mistake.
                signature = sign(body, secret, now - 3 * 3_600)
            case _:
                signature = sign(render(told.event), secret, now)
        await self._send(forged_id, body, endpoint, signature, genuine=False)

    async def _attempt(self, event_id: str, body: bytes, endpoint: Endpoint) -> bool:
        """One attempt with a signature of its own; whether Stripe has learnt that it was taken."""
        self.signed.add((hashlib.sha256(body).hexdigest(), endpoint.name))
        return await self._send(event_id, body, endpoint, sign(body, endpoint.secrets[0], self._now()), genuine=True)

    async def _send(
        self, event_id: str, body: bytes, endpoint: Endpoint, signature: str | None, *, genuine: bool
    ) -> bool:
        site, chaos = self._site, self._site.chaos
        site.disturb()
        attempt = Attempt(len(site.history.attempts), event_id, endpoint.name, genuine, body, site.loop.time())
        site.history.attempts.append(attempt)
        site.history.tell("stripe", f"sends {event_id} to {endpoint.name}{'' if genuine else ' (forged)'}")
        if chaos.strikes(Fault.REQUEST_LOST):
            await asyncio.sleep(TIMEOUT_SECONDS)
            return False
        late = chaos.chance.uniform(0, 9) if chaos.strikes(Fault.REQUEST_LATE) else 0.0
        await asyncio.sleep(chaos.latency() + late)
        listening = [
            each for each in self._receivers if each.alive and not (each.stopping and chaos.chance.random() < 0.5)
        ]
        if not listening:
            return False
        handling = chaos.chance.choice(listening).serve(endpoint.path, body, signature, attempt)
        hung_up = chaos.strikes(Fault.HUNG_UP)
        patience = chaos.chance.uniform(0, 0.02) if hung_up else TIMEOUT_SECONDS
        await asyncio.wait([handling], timeout=patience)
        if not handling.done():
            if hung_up:
                handling.cancel()
            return False
        if handling.cancelled() or chaos.strikes(Fault.ANSWER_LOST):
            return False
        await asyncio.sleep(chaos.latency())
        return handling.exception() is None and 200 <= handling.result().status < 300

    def _now(self) -> int:
        return int(EPOCH.timestamp() + self._site.loop.time())


async def all_of(planned: Sequence[Awaitable[None]], progress: Callable[[str], None]) -> None:
    """Run all of them to their end."""
    tasks = [asyncio.ensure_future(each) for each in planned]
    for task in tasks:
        await asyncio.wait([task])
        if not task.cancelled() and (failure := task.exception()) is not None:
            progress(repr(failure))
            raise failure
