"""A signing secret is rolled while deliveries arrive: none is refused, and each is on Kafka once."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from service.credentials.book import Credentials, EndpointCredentials, SigningSecret
from service.credentials.file import CredentialsFile
from service.events import Secret
from service.local.ports import free_port
from service.signature import fingerprint
from service.simulator.events import render, sample
from service.simulator.stripe_sender import DeliveryResult, StripeSender
from tests.acceptance.test_processes import environment, ready
from tests.support.deployment import Deployment
from tests.support.processes import CommandLine
from tests.support.waiting import descendants, eventually

OLD, NEW = Secret("whsec_old_0123456789abcdef"), Secret("whsec_new_0123456789abcdef")
CLIENTS = 4
ENOUGH = 40
"""Deliveries between two steps of a roll."""


@dataclass
class Load:
    """Deliveries without an end, one event each, signed as Stripe signs them at the moment."""

    url: str
    results: dict[str, DeliveryResult] = field(default_factory=dict)
    _sender: StripeSender | None = None
    _senders: AsyncExitStack = field(default_factory=AsyncExitStack)
    _stopping: bool = False
    _seed: int = 0

    async def sign_with(self, *secrets: Secret) -> None:
        """Deliver with these from now on; return when enough was answered that was signed so."""
        self._sender = await self._senders.enter_async_context(StripeSender(self.url, secrets))
        await self.enough()

    async def enough(self) -> None:
        """Return when enough was answered that was sent from now on."""
        wanted = len(self.results) + CLIENTS + ENOUGH
        await eventually(lambda: len(self.results) >= wanted, timeout_seconds=60, what="deliveries are answered")

    @asynccontextmanager
    async def running(self, *secrets: Secret) -> AsyncIterator[None]:
        async with self._senders, asyncio.TaskGroup() as clients:
            self._sender = await self._senders.enter_async_context(StripeSender(self.url, secrets))
            for _ in range(CLIENTS):
                clients.create_task(self._client())
            try:
                await self.enough()
                yield
            finally:
                self._stopping = True

    async def _client(self) -> None:
        while not self._stopping:
            assert self._sender is not None
            self._seed += 1
            event = sample("payment_intent.succeeded", seed=self._seed, created=int(time.time()))
            self.results[str(event["id"])] = await self._sender.deliver(render(event))

    @property
    def answers(self) -> set[str]:
        """What they were told, whatever it was."""
        return {f"{result.status} {result.answer}" for result in self.results.values()}


@dataclass(frozen=True)
class Shop:
    """The configuration of one endpoint, on the disk."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "stripe-ingest.toml"

    @property
    def store(self) -> CredentialsFile:
        return CredentialsFile(self.folder / "secrets.json")

    def write(self, *secrets: Secret, path: str = "/webhooks/shop") -> None:
        """Its secrets, where they are not the store's."""
        given = f"secrets = {[secret.value for secret in secrets]}\n" if secrets else ""
        self.file.write_text(
            f'[secrets]\nstore = "{self.store.path}"\n'
            f'[[endpoints]]\nname = "shop"\nmode = "test"\npath = "{path}"\n{given}',
            encoding="utf-8",
        )

    def keep(self, *secrets: Secret) -> None:
        """Its secrets in the store, newest first."""
        signing = tuple(SigningSecret(secret, datetime.now(UTC)) for secret in secrets)
        self.store.write(Credentials().having("shop", EndpointCredentials(signing)))


@dataclass(frozen=True)
class Receiving:
    """A running `stripe-ingest receive`."""

    process: asyncio.subprocess.Process
    url: str
    admins: Sequence[int]
    session: aiohttp.ClientSession

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    async def metrics(self) -> list[Mapping[str, float]]:
        """Each worker's."""
        return [await scraped(self.session, admin) for admin in self.admins]

    async def serves(self, *secrets: Secret) -> None:
        """Return when every worker verifies with these, and no others."""
        prefix = 'stripe_ingest_active_secrets{endpoint="shop",secret="'
        wanted = {f'{prefix}{fingerprint(secret)}"}}' for secret in secrets}

        async def all_do() -> bool:
            return all({name for name in each if name.startswith(prefix)} == wanted for each in await self.metrics())

        await eventually(all_do, timeout_seconds=30, what="the secrets are served")

    async def has_verified_with(self, secret: Secret) -> None:
        """Return when every worker has verified a delivery with this one."""
        name = f'stripe_ingest_verified_total{{endpoint="shop",secret="{fingerprint(secret)}"}}'

        async def all_have() -> bool:
            return all(each.get(name, 0) > 0 for each in await self.metrics())

        await eventually(all_have, timeout_seconds=30, what="the secret is used")

    async def reloads(self, outcome: str) -> list[float]:
        return [each[f'stripe_ingest_reloads_total{{outcome="{outcome}"}}'] for each in await self.metrics()]

    async def deliver(self, *secrets: Secret, path: str = "", seed: int = 0) -> DeliveryResult:
        """One more event."""
        event = sample("payment_intent.succeeded", seed=-1 - seed, created=int(time.time()))
        async with StripeSender(path or self.url, secrets) as sender:
            return await sender.deliver(render(event))


async def scraped(session: aiohttp.ClientSession, admin: int) -> Mapping[str, float]:
    async with session.get(f"http://127.0.0.1:{admin}/metrics") as response:
        lines = (await response.text()).splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


@asynccontextmanager
async def receiving(deployed: Deployment, shop: Shop, *, workers: int = 1) -> AsyncIterator[Receiving]:
    port, admin = free_port(), free_port()
    env = environment(
        deployed,
        STRIPE_INGEST_CONFIG=str(shop.file),
        STRIPE_INGEST__RECEIVER__PORT=str(port),
        STRIPE_INGEST__RECEIVER__WORKERS=str(workers),
        STRIPE_INGEST__ADMIN__PORT=str(admin),
    )
    async with CommandLine(env).running("receive") as started, aiohttp.ClientSession() as session:
        admins = range(admin, admin + workers)
        for number in admins:
            await eventually(lambda n=number: ready(session, n), timeout_seconds=30, what="the receiver is ready")
        yield Receiving(started, f"http://127.0.0.1:{port}/webhooks/shop", admins, session)
        started.terminate()
        assert started.stderr is not None
        await asyncio.wait_for(started.stderr.read(), 30)
        assert await asyncio.wait_for(started.wait(), 30) == 0


async def published(deployed: Deployment) -> list[str]:
    """The ids of the events on the topic, sorted."""
    records = await deployed.records(deployed.topics.of("payment"))
    return sorted(dict(record.headers)["ce_id"].decode() for record in records)


async def test_a_secret_is_rolled_in_the_store_under_load_and_not_one_delivery_is_refused(
    deployed: Deployment, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    shop.write()
    shop.keep(OLD)
    async with receiving(deployed, shop) as receiver:
        load = Load(receiver.url)
        async with load.running(OLD):
            await load.sign_with(OLD, NEW)  # Stripe's overlap begins before anybody here knows the new one
            shop.keep(NEW, OLD)
            await receiver.has_verified_with(NEW)
            await load.sign_with(NEW)
            shop.keep(NEW)
            await receiver.serves(NEW)
            await load.enough()

        assert load.answers == {"200 accepted"}
        refused = await receiver.deliver(OLD)
        assert (refused.status, refused.reason) == (400, "signature_mismatch")
        assert await receiver.reloads("done") == [2]
    assert await published(deployed) == sorted(load.results)


async def test_a_secret_is_rolled_in_the_file_of_two_workers_by_sighup_and_not_one_delivery_is_refused(
    deployed: Deployment, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    shop.write(OLD)
    async with receiving(deployed, shop, workers=2) as receiver:
        load = Load(receiver.url)
        async with load.running(OLD):
            shop.write(NEW, OLD)
            receiver.hang_up()
            await receiver.serves(NEW, OLD)
            await load.sign_with(OLD, NEW)
            await load.sign_with(NEW)
            shop.write(NEW)
            receiver.hang_up()
            await receiver.serves(NEW)
            await load.enough()

        assert load.answers == {"200 accepted"}
        assert {(await receiver.deliver(OLD, seed=seed)).status for seed in range(8)} == {400}
        assert await receiver.reloads("done") == [2, 2]
    assert await published(deployed) == sorted(load.results)


async def test_a_worker_that_succeeds_a_dead_one_begins_with_the_secrets_of_now(
    deployed: Deployment, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    shop.write(OLD)
    async with receiving(deployed, shop, workers=2) as receiver:
        shop.write(NEW)
        receiver.hang_up()
        await receiver.serves(NEW)

        before = descendants(receiver.process.pid)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await eventually(
            lambda: len(descendants(receiver.process.pid) - before) == 2, timeout_seconds=30, what="the successors"
        )
        for admin in receiver.admins:
            await eventually(lambda n=admin: ready(receiver.session, n), timeout_seconds=30, what="both are ready")

        assert {(await receiver.deliver(NEW, seed=seed)).status for seed in range(8)} == {200}
        assert {(await receiver.deliver(OLD, seed=seed)).status for seed in range(8)} == {400}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_broken_configuration_changes_nothing(deployed: Deployment, tmp_path: Path, workers: int) -> None:
    shop = Shop(tmp_path)
    shop.write(OLD)
    async with receiving(deployed, shop, workers=workers) as receiver:
        load = Load(receiver.url)
        async with load.running(OLD):
            shop.file.write_text(
                '[[endpoints]]\nname = "shop"\nmode = "tset"\nsecrets = ["whsec_x"]\n', encoding="utf-8"
            )
            receiver.hang_up()

            async def refused() -> bool:
                return await receiver.reloads("refused") == [1] * workers

            await eventually(refused, timeout_seconds=30, what="it is refused by every worker")
            await load.enough()
        await receiver.serves(OLD)
        assert load.answers == {"200 accepted"}

        shop.write(OLD, path="/moved")
        receiver.hang_up()
        moved = f"{receiver.url.removesuffix('/webhooks/shop')}/moved"

        async def done() -> bool:
            return await receiver.reloads("done") == [1] * workers

        await eventually(done, timeout_seconds=30, what="the mended one is taken")
        assert (await receiver.deliver(OLD, path=moved)).status == 200
        assert (await receiver.deliver(OLD)).status == 404
