"""Webhook endpoints at a Stripe in memory, a store that can lose power, and everything that registering needs of both."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.adapters.memory_webhook_endpoints import MemoryWebhookEndpoints, MemoryWebhookEndpointsClient
from service.config import Config, EndpointConfig, ReceiverConfig
from service.credentials.book import Credentials, EndpointCredentials, SigningSecret
from service.errors import JobHeld
from service.events import Secret
from service.stripe_account.endpoint_apply import Done, Registration, carry_out
from service.stripe_account.endpoint_matching import Deployment
from service.stripe_account.endpoint_plan import Plan, plan
from service.stripe_account.endpoint_wanted import WantedEndpoint, deployment_of, wanted_endpoints
from tests.support.fake_stripe import ManualClock

PUBLIC_URL = "https://hooks.example.com"
API_KEY = Secret("sk_test_0123456789abcdef")


class Crash(BaseException):
    """The process is gone."""


@dataclass
class MemoryCredentials:
    """`CredentialStore` in this process. `crash_in` writes it crashes: before one is safe, or after it is."""

    kept: Credentials = field(default_factory=Credentials)
    writes: int = 0
    crash_in: int | None = None
    crash_when_safe: bool = False
    is_held: bool = False

    def read(self) -> Credentials:
        return self.kept

    def write(self, credentials: Credentials) -> None:
        self.writes += 1
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                if self.crash_when_safe:
                    self.kept = credentials
                raise Crash
        self.kept = credentials

    @contextmanager
    def held(self) -> Iterator[None]:
        if self.is_held:
            raise JobHeld("the store is being changed by another process")
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False


def endpoint(name: str = "shop", **settings: Any) -> EndpointConfig:
    given: dict[str, Any] = {
        "mode": "test",
        "events": ("charge.succeeded", "charge.refunded"),
        "api_key": API_KEY,
    } | settings
    return EndpointConfig(name=name, **given)


def config(*endpoints: EndpointConfig) -> Config:
    return Config(receiver=ReceiverConfig(public_url=PUBLIC_URL), endpoints=endpoints or (endpoint(),))


def signing(secret: str, webhook_endpoint_id: str | None = None, clock: ManualClock | None = None) -> SigningSecret:
    return SigningSecret(Secret(secret), (clock or ManualClock()).now(), webhook_endpoint_id)


def keeping(*signed: SigningSecret, name: str = "shop") -> Credentials:
    return Credentials().having(name, EndpointCredentials(signing=signed))


@dataclass
class World:
    """A configuration, its account at Stripe in test mode, its store, and the time."""

    config: Config = field(default_factory=config)
    clock: ManualClock = field(default_factory=ManualClock)
    store: MemoryCredentials = field(default_factory=MemoryCredentials)

    def __post_init__(self) -> None:
        self.stripe = MemoryWebhookEndpoints(self.clock)
        self.client = self.stripe.client()
        self._keys = itertools.count(1)

    @property
    def registration(self) -> Registration:
        return self.registration_with(self.client)

    def registration_with(self, client: MemoryWebhookEndpointsClient) -> Registration:
        return Registration(client, self.store, self.clock, lambda: f"key_{next(self._keys)}")

    @property
    def configured(self) -> frozenset[str]:
        return frozenset(each.name for each in self.config.endpoints)

    @property
    def deployment(self) -> Deployment:
        return deployment_of(self.config)

    @property
    def wanted(self) -> Mapping[str, WantedEndpoint]:
        return wanted_endpoints(self.config, dict.fromkeys(self.configured, "test"))

    @property
    def kept(self) -> EndpointCredentials:
        return self.store.kept.of("shop")

    def plan(self, *, prune: bool = False) -> Plan:
        return plan(
            self.wanted, self.stripe.endpoints, self.store.kept, deployment=self.deployment, now=self.clock.now(),
            prune=prune,
        )  # fmt: skip

    async def apply(self, *, prune: bool = False) -> Sequence[Done]:
        """What the command does for one account: list, plan, and carry out."""
        listed = await self.client.all()
        made = plan(self.wanted, listed, self.store.kept, deployment=self.deployment, now=self.clock.now(), prune=prune)
        return [done async for done in carry_out(made.steps, self.registration)]


@dataclass(frozen=True)
class Moment:
    """When the process ends: at a call of Stripe or at a write of the store, of this number, before it or after it."""

    at: str
    number: int
    after: bool

    def arrange(self, world: World) -> None:
        """Have it come."""
        if self.at == "call":
            world.stripe.fail(Crash(), after=self.number, done=self.after)
        else:
            world.store.crash_in, world.store.crash_when_safe = self.number, self.after

    @staticmethod
    def none(world: World) -> None:
        """Have none come any more."""
        world.stripe.heal()
        world.store.crash_in = None


MOMENTS_MAX = 7
MOMENTS = [
    Moment(at, number, after) for at in ("call", "write") for number in range(MOMENTS_MAX) for after in (False, True)
]
"""More than any of these runs has: after its end none comes any more."""
