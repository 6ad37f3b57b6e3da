"""A deployment as it is run, in which everything is well until somebody hurts it.

A receiver and a consumer for each projection, each a process; their Kafka and Postgres, a Stripe of our own, and a
Prometheus with the rules that are deployed.
"""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from service.bootstrap import kafka as bootstrap_kafka
from service.config import Config, load
from service.local.kafka import LocalKafka
from service.local.postgres import LocalPostgres
from service.local.redis import LocalRedis
from service.projections import PROJECTIONS
from service.records import Topics
from service.simulator.fake_stripe import FakeStripe, serving
from tests.alerting.front import AUTHORITY, Front
from tests.alerting.scaling import compressed_rules
from tests.alerting.traffic import Traffic
from tests.support.deployment import TEST_SECRET
from tests.support.prometheus import Job, Prometheus, prometheus
from tests.support.stack import MIGRATED_TEMPLATE, POSTGRES_TEST_SETTINGS, database, make_template, running
from tests.support.waiting import eventually, free_port

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus"
WATCHDOG: Final = "StripeIngestWatchdog"
EVENTS: Final = ("payment_intent.succeeded", "charge.refunded", "customer.subscription.updated")
READY_SECONDS_MAX: Final = 60.0
QUIET_SECONDS: Final = 6.0
"""How long nothing but the watchdog must fire before a fault is injected; longer than most alerts' `for`."""
END_SECONDS_MAX: Final = 25.0

RECEIVER: Final = "receiver"
SECOND: Final = "second"
"""Another receiver, on another port: nothing is sent to it."""


def rule_files() -> Sequence[Path]:
    """The rules that are deployed."""
    return [RULES / "recording.yml", *sorted((RULES / "alerts").glob("*.yml"))]


@dataclass
class Servers:
    """What outlives a world: starting them takes longer than anything else."""

    kafka: LocalKafka
    postgres: LocalPostgres
    redis: LocalRedis

    async def mend(self) -> None:
        """Have all of them run again, whatever was done to them."""
        for server in (self.kafka, self.postgres, self.redis):
            server.resume()
            await server.start()


@dataclass
class World:
    """One deployment. `settings` are variables of its processes, over the configuration file."""

    folder: Path
    servers: Servers
    fake: FakeStripe
    stripe_url: str
    database_url: str
    prefix: str
    settings: Mapping[str, str]
    exits: AsyncExitStack
    """What is to be ended with it."""
    endpoint_id: str = ""
    """Of the endpoint at Stripe."""
    front: Front | None = None
    public_url: str = ""
    """Where Stripe reaches the endpoint; the receiver itself, unless something stands in front of it."""
    port: int = field(default_factory=free_port)
    admin: Mapping[str, int] = field(
        default_factory=lambda: {name: free_port() for name in (RECEIVER, SECOND, *PROJECTIONS)}
    )
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _prometheus: Prometheus | None = None
    _traffic: Traffic | None = None

    @property
    def prometheus(self) -> Prometheus:
        """The one that scrapes it."""
        assert self._prometheus is not None
        return self._prometheus

    @property
    def traffic(self) -> Traffic:
        """What Stripe sends."""
        assert self._traffic is not None
        return self._traffic

    @property
    def url(self) -> str:
        """Of the endpoint `shop`."""
        return f"http://127.0.0.1:{self.port}/webhooks/shop"

    @property
    def config_file(self) -> Path:
        """What all processes read."""
        return self.folder / "stripe-ingest.toml"

    @property
    def config(self) -> Config:
        """What the processes have."""
        return load(str(self.config_file), self.environment)

    @property
    def topics(self) -> Topics:
        """Their names."""
        return Topics(self.prefix)

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SSL_CERT_FILE": str(self.folder / AUTHORITY),
            "STRIPE_INGEST__LOGGING__FORMAT": "json",
            **self.settings,
        }

    def write_config(self, *, secrets: Sequence[str] = (TEST_SECRET.value,), more: str = "") -> None:
        """Write the configuration file; `more` is what follows the endpoint's table."""
        key = self.folder / "api-key"
        if not key.exists():
            key.write_text(self.fake.new_key("test"))
        listed = ", ".join(f'"{secret}"' for secret in secrets)
        self.config_file.write_text(
            f"""
[receiver]
host = "127.0.0.1"
port = {self.port}
shutdown_timeout_seconds = 3.0
[kafka]
bootstrap_servers = "{self.servers.kafka.bootstrap_servers}"
topic_prefix = "{self.prefix}"
partitions = 2
replication_factor = 1
min_insync_replicas = 1
[database]
url = "{self.database_url}"
[dedupe]
timeout_seconds = 1.0
[stripe]
api_base = "{self.stripe_url}"
requests_per_second = 100.0
watch_interval_seconds = 2
[reconcile]
interval_seconds = 2
lookback_hours = 1
grace_seconds = 0
[secrets]
store = "{self.folder}/secrets.json"
[[endpoints]]
name = "shop"
mode = "test"
secrets = [{listed}]
events = {json.dumps(EVENTS)}
api_key_file = "{key}"
url = "{self.public_url or self.url}"
{more}
""",
            encoding="utf-8",
        )

    async def start(
        self, name: str, *, bug: str | None = None, log: int | None = None, open_files: int | None = None, **more: str
    ) -> None:
        """Start a process of ours: the receiver, a projection's consumer, or the second receiver.

        With a planted `bug`, with its lines to the descriptor `log`, with so many `open_files` at most, with `more`
        variables.
        """
        module = ("service",) if bug is None else ("tests.alerting.planted", bug)
        command = ("consume", name) if name in PROJECTIONS else ("receive",)
        own = {"STRIPE_INGEST__ADMIN__PORT": str(self.admin[name])}
        if name == SECOND:
            own["STRIPE_INGEST__RECEIVER__PORT"] = str(free_port())
        with (self.folder / f"{name}.log").open("ab") as lines:
            self.processes[name] = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *module, *command, "--config", str(self.config_file),
                env=self.environment | own | more, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL, stderr=lines if log is None else log,
            )  # fmt: skip
        if open_files is not None:  # it looks at its limit later: Python has not even started
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_files, open_files))

    async def restart(self, name: str, *, bug: str | None = None) -> None:
        """Kill a process and start it again."""
        await self.kill(name)
        await self.start(name, bug=bug)
        await self.ready(name)

    async def kill(self, name: str) -> None:
        """End a process as the kernel would."""
        self.processes[name].kill()
        await self.processes[name].wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a process a signal."""
        self.processes[name].send_signal(number)

    async def ready(self, name: str) -> None:
        """Return once a process says that it is ready."""
        async with aiohttp.ClientSession() as session:

            async def is_ready() -> bool:
                process = self.processes[name]
                assert process.returncode is None, f"{name} has ended: {self.said(name)}"
                try:
                    async with session.get(f"http://127.0.0.1:{self.admin[name]}/readyz") as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(is_ready, timeout_seconds=READY_SECONDS_MAX, what=f"{name} is ready")

    def said(self, name: str) -> str:
        """The end of a process's log."""
        return (self.folder / f"{name}.log").read_text("utf-8")[-2000:]

    async def query(self, statement: str) -> Sequence[asyncpg.Record]:
        """Ask the deployment's database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    async def quiet(self, *, timeout_seconds: float = 90.0) -> None:
        """Return once for some time nothing but the watchdog has fired."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        seen: frozenset[str] = frozenset()

        async def nothing_fires() -> bool:
            nonlocal since, seen
            firing = await self.prometheus.firing()
            if firing != {WATCHDOG}:
                since, seen = loop.time(), firing
            return loop.time() - since >= QUIET_SECONDS

        try:
            await eventually(nothing_fires, timeout_seconds=timeout_seconds, what="no alert fires")
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {sorted(seen)}") from None

    async def end(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                await asyncio.wait_for(process.wait(), END_SECONDS_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()


Prepare = Callable[[World], Awaitable[None]]


async def nothing(_: World) -> None:
    """Prepare nothing."""


@asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[Servers]:
    """Kafka, Postgres with a template of a migrated database, and Redis."""
    async with (
        running(LocalKafka(folder / "kafka")) as kafka,
        running(LocalPostgres(folder / "postgres", settings=POSTGRES_TEST_SETTINGS)) as postgres,
        running(LocalRedis(folder / "redis")) as redis,
    ):
        await make_template(postgres)
        yield Servers(kafka, postgres, redis)


@asynccontextmanager
async def world(
    folder: Path,
    on: Servers,
    prefix: str,
    *,
    settings: Mapping[str, str],
    prepare: Prepare = nothing,
    receivers: Sequence[str] = (RECEIVER,),
    stretch: float = 1.0,
    until_quiet: bool = True,
) -> AsyncIterator[World]:
    """A deployment in which everything is well, under traffic, watched for some time; ended after the block.

    `prepare` is called before its processes start: it may change the configuration file. With `until_quiet` false it is
    not waited for that no alert fires.
    """
    await on.mend()
    async with AsyncExitStack() as stack:
        fake = FakeStripe(speed=3600)
        stripe_url = await stack.enter_async_context(serving(fake))
        database_url = await stack.enter_async_context(database(on.postgres, MIGRATED_TEMPLATE))
        stack.push_async_callback(on.mend)
        here = World(folder, on, fake, stripe_url, database_url, prefix, settings, stack)
        await prepare(here)
        here.write_config()
        here.endpoint_id = fake.register(here.public_url or here.url, EVENTS)["id"]
        await bootstrap_kafka.apply_topics(here.config)
        stack.push_async_callback(here.end)
        for name in (*receivers, *PROJECTIONS):
            await here.start(name)
        for name in (*receivers, *PROJECTIONS):
            await here.ready(name)
        here._traffic = Traffic(here.url)
        sending = asyncio.create_task(here.traffic.run())
        stack.push_async_callback(ended, sending)
        here._prometheus = await stack.enter_async_context(
            prometheus(
                folder,
                [
                    Job("stripe-ingest-receiver", [f"127.0.0.1:{here.admin[name]}" for name in receivers]),
                    Job("stripe-ingest-consumer", [f"127.0.0.1:{here.admin[name]}" for name in PROJECTIONS]),
                ],
                rule_files=compressed_rules(rule_files(), folder, stretch),
                scrape_interval="500ms",
                evaluation_interval="500ms",
            )
        )
        await here.prometheus.all_up()
        if until_quiet:
            await here.quiet()
        yield here


async def ended(task: asyncio.Task[None]) -> None:
    """End a task, whatever it is doing."""
    task.cancel()
    await asyncio.wait([task])
