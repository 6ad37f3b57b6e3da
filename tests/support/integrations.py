"""An integration as the people who run it have it: a preset's file, `stripe-ingest` on the command line, and Stripe."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import orjson

from service.bootstrap import kafka as bootstrap_kafka
from service.config import Config, load
from service.credentials.book import SigningSecret
from service.credentials.file import new_key
from service.events import Secret
from service.local.arrivals import until_caught_up
from service.presets import PRESETS, with_public_url
from service.simulator.events import sample
from service.simulator.fake_stripe import FakeStripe
from service.simulator.fake_stripe.shelf import Page
from service.simulator.objects import Object
from tests.support.deployment import ROWS, Deployment
from tests.support.waiting import eventually, free_port

HOUR: Final = 3_600
PUBLIC_URL: Final = "https://hooks.example.com"
"""What the pages call it; the fake Stripe delivers what goes there to the receiver on this machine."""
NOWHERE: Final = "http://127.0.0.1:9"
"""The way to the outside: nothing leaves this machine."""
START_SECONDS: Final = 30
SETTLE_SECONDS: Final = 60


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, what it printed, what it said beside that."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All of it, on one line where tables and terminals break it."""
        return " ".join(f"{self.out} {self.err}".split())


@dataclass
class Installation:
    """A preset, installed in a folder of its own on the tests' Kafka and Postgres."""

    folder: Path
    settings: dict[str, str]
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.folder / "stripe-ingest.toml"

    @property
    def url(self) -> str:
        """Where the receiver is on this machine."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process of this installation is started with: this machine's addresses, over the preset's file."""
        return {
            "PATH": os.environ["PATH"],
            "HTTPS_PROXY": NOWHERE,
            "STRIPE_INGEST_CONFIG": str(self.file),
            "STRIPE_INGEST__RECEIVER__HOST": "127.0.0.1",
            "STRIPE_INGEST__RECEIVER__PORT": str(self.port),
            "STRIPE_INGEST__ADMIN__PORT": str(self.admin_port),
        } | self.settings

    @property
    def config(self) -> Config:
        """The configuration as it is now, store and all."""
        return load(str(self.file), self.environment)

    def keep(self, name: str, secret: str) -> None:
        """Put a secret into the file that the preset names."""
        (self.folder / name).write_text(f"{secret}\n", encoding="utf-8")

    def give(self, name: str, signing_secret: str) -> None:
        """Put an endpoint's signing secret into the store, as `secrets set` does, without starting a process."""
        store = self.config.secrets.file()
        assert store is not None
        kept = store.read()
        added = SigningSecret(Secret(signing_secret), datetime.now(UTC).replace(microsecond=0))
        store.write(kept.having(name, kept.of(name).with_signing(added)))

    def edit(self, old: str, new: str) -> None:
        """Change the configuration file, as its reader would."""
        text = self.file.read_text(encoding="utf-8")
        assert old in text
        self.file.write_text(text.replace(old, new), encoding="utf-8")

    async def run(self, *arguments: str, given: str | None = None, **settings: str) -> Ended:
        """Run `stripe-ingest …` to its end; `given` is piped in, `settings` are for this run only."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", *arguments, env={**self.environment, **settings},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate(None if given is None else given.encode())
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def done(self, *arguments: str, given: str | None = None, **settings: str) -> Ended:
        """Run one that must succeed."""
        ended = await self.run(*arguments, given=given, **settings)
        assert ended.code == 0, f"stripe-ingest {' '.join(arguments)}: exit {ended.code}\n{ended.out}{ended.err}"
        return ended

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """`stripe-ingest receive`, ready; asked to stop at the end of the block."""
        with (self.folder / "receiver.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "service", "receive", env=self.environment, stdout=log, stderr=log
            )
        try:
            await eventually(lambda: self._ready(process), timeout_seconds=START_SECONDS, what="the receiver is ready")
            yield process
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _ready(self, process: asyncio.subprocess.Process) -> bool:
        assert process.returncode is None, (self.folder / "receiver.log").read_text("utf-8")
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.admin_port}/readyz") as response,
            ):
                return response.status == 200
        except aiohttp.ClientError:
            return False

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        """The consumers of all projections."""
        quiet = {"STRIPE_INGEST__ADMIN__PORT": "0"}
        async with Deployment(load(str(self.file), {**self.environment, **quiet})).consuming():
            yield

    async def settled(self, *fakes: FakeStripe) -> None:
        """Return once nothing is to be delivered any more, and the consumers have passed what was."""
        for fake in fakes:
            await eventually(
                lambda fake=fake: fake.deliveries.waiting == 0, timeout_seconds=SETTLE_SECONDS, what="all is delivered"
            )
        config = self.config
        assert await until_caught_up(
            config.kafka.bootstrap_servers,
            config.database_url,
            Deployment(config).topics,
            timeout_seconds=SETTLE_SECONDS,
        )

    async def rows(self, table: str) -> Mapping[str, Mapping[str, Any]]:
        """The rows of a table by their object's id."""
        connection = await asyncpg.connect(self.config.database_url)
        try:
            return {row[ROWS[table]]: dict(row) for row in await connection.fetch(f"SELECT * FROM {table}")}
        finally:
            await connection.close()

    async def records(self, *families: str) -> list[dict[str, Any]]:
        """The values of all records on these topics (payments, refunds, …), `ingest_source` from their headers added."""
        deployed = Deployment(self.config)
        found = await deployed.records(*(f"{deployed.topics.prefix}.{family}" for family in families))
        return [
            {**orjson.loads(record.value or b""), "ingest_source": dict(record.headers)["ingest_source"].decode()}
            for record in found
        ]


@dataclass(frozen=True)
class Installer:
    """Where presets are installed: a folder, Kafka and Postgres."""

    folder: Path
    bootstrap_servers: str
    database_url: str
    topic_prefix: str

    async def install(self, name: str, stripe_url: str, **files: str) -> Installation:
        """Install one as its page says: the file, the secrets that it names (`files`), topics and tables.

        Nothing happens by itself in it: no receiver reconciles or watches unless a test's settings say so.
        """
        here = Installation(
            self.folder,
            {
                "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
                "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": self.topic_prefix,
                "STRIPE_INGEST__KAFKA__PARTITIONS": "2",
                "STRIPE_INGEST__KAFKA__REPLICATION_FACTOR": "1",
                "STRIPE_INGEST__KAFKA__MIN_INSYNC_REPLICAS": "1",
                # On a busy test machine a bypass, harmless as it is, would put a second record where a test counts one.
                "STRIPE_INGEST__DEDUPE__TIMEOUT_SECONDS": "1",
                "STRIPE_INGEST__STRIPE__API_BASE": stripe_url,
                "STRIPE_INGEST__STRIPE__REQUESTS_PER_SECOND": "100",
                "STRIPE_INGEST__STRIPE__WATCH_INTERVAL_SECONDS": "0",
                "STRIPE_INGEST__RECONCILE__INTERVAL_SECONDS": "0",
                "STRIPE_INGEST__RECONCILE__GRACE_SECONDS": "0",
                "STRIPE_INGEST__LOGGING__FORMAT": "json",
            },
        )
        # As `config init --preset … --public-url …` and `secrets key --output …` would, without starting processes.
        here.file.write_text(with_public_url(PRESETS[name].configuration, PUBLIC_URL), encoding="utf-8")
        here.edit("/run/secrets", str(self.folder))
        here.edit("/var/lib/stripe-ingest", str(self.folder))
        for file, secret in {"store-key": new_key(), "database-url": self.database_url, **files}.items():
            here.keep(file.replace("_", "-"), secret)
        await bootstrap_kafka.apply_topics(here.config)
        return here


def happened(event_type: str, seed: int, *, livemode: bool = False, ago: int = 0, **fields: Any) -> Object:
    """An event that has just happened (or so many seconds ago), with these fields of its object changed."""
    event = sample(event_type, seed=seed, created=int(datetime.now(UTC).timestamp()) - ago, livemode=livemode)
    return {**event, "data": {**event["data"], "object": {**event["data"]["object"], **fields}}}


def object_id(event: Object) -> str:
    """The id of what an event is about."""
    return str(event["data"]["object"]["id"])


def attempts(fake: FakeStripe, event: Object) -> Sequence[int | None]:
    """What each attempt to deliver an event was answered, in order; None for no answer."""
    return [attempt.status for attempt in fake.deliveries.attempts if attempt.event_id == event["id"]]


def registered(fake: FakeStripe, *, mode: str) -> Collection[Object]:
    """The webhook endpoints that Stripe has in a mode."""
    found, _ = fake.book(fake.account, livemode=mode == "live").endpoints.page(Page.of({"limit": "100"}))
    return found
