"""What a delivery costs the receiver, beside a bare aiohttp server in the same run.

`python -m tests.bench.receiver [--rounds N] [--events N] [--connections N] [--rate N]`

The real process, the real Kafka, Postgres and Redis; every delivery is signed, new, and must be answered "accepted". The
servers take turns, in every other round in the opposite order, so that a slow minute of the machine is everybody's;
the first round warms up and is not counted. The ratio to the baseline is taken within each round.
"""

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import aiohttp
import click
import uvloop
from rich.progress import Progress
from rich.table import Table

from service.local.ports import LOOPBACK, free_port
from tests.bench.load import bodies, drive, request
from tests.bench.measuring import (
    MICROSECONDS,
    Servers,
    Spread,
    console,
    cpu_seconds,
    machine,
    process,
    quantile,
    say,
    servers,
)
from tests.support.deployment import TEST_SECRET, Deployment, deployment
from tests.support.waiting import eventually

PATH = "/webhooks/stripe"
BARE = "bare aiohttp"
START_SECONDS = 30
PACED_SECONDS = 2
"""How long the paced load of a round lasts."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server under load; a receiver also has an admin side and a log."""

    name: str
    pid: int
    port: int
    admin: int | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One contestant's part of a round. CPU in µs per event, latencies in ms."""

    cpu: float
    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of load: its name, so many events a round, and the pace where there is one."""

    name: str
    events: int
    per_second: float | None = None


async def bench(rounds: int, events: int, connections: int, rate: int) -> None:
    kinds = [
        Kind(f"closed loop, {connections} connections", events),
        Kind(f"paced, {rate}/s", rate * PACED_SECONDS, rate),
    ]
    results: dict[tuple[str, str], list[Measured]] = {}
    feed = bodies()
    async with servers() as running, contestants(running) as competing:
        with Progress(console=console(), transient=True) as progress:
            for number in progress.track(range(rounds + 1), description="rounds"):
                turn = competing if number % 2 else competing[::-1]
                for kind in kinds:
                    measured = await one_round(turn, kind, feed, connections)
                    if number > 0:
                        for name, value in measured.items():
                            results.setdefault((kind.name, name), []).append(value)
        for kind in kinds:
            show(kind, [contestant.name for contestant in competing], results)
        sent = (rounds + 1) * sum(kind.events for kind in kinds)
        await tell(competing, sent, rounds)


async def one_round(
    turn: Sequence[Contestant], kind: Kind, feed: Iterator[bytes], connections: int
) -> dict[str, Measured]:
    """The same deliveries to each contestant in turn; each one has never seen them before."""
    requests = [request(body, PATH, TEST_SECRET) for body in islice(feed, kind.events)]
    measured: dict[str, Measured] = {}
    for contestant in turn:
        before = cpu_seconds(contestant.pid)
        load = await drive(contestant.port, requests, connections=connections, per_second=kind.per_second)
        spent = cpu_seconds(contestant.pid) - before
        measured[contestant.name] = Measured(
            cpu=spent / len(requests) * MICROSECONDS,
            per_second=load.per_second,
            p50=quantile(load.latencies, 0.50) * 1000,
            p99=quantile(load.latencies, 0.99) * 1000,
        )
    return measured


@asynccontextmanager
async def contestants(running: Servers) -> AsyncIterator[list[Contestant]]:
    """The baseline, and receivers: each dedupe store, and one without the event log. Topics and tables are there."""
    deployed = await deployment(running.kafka.bootstrap_servers, running.postgres.url, "bench")
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(bare_server(running.folder / "bare.log"))
        receivers = [
            await stack.enter_async_context(receiver(name, deployed, url, running.folder, event_log_days=days))
            for name, url, days in (
                ("receiver, dedupe in memory, no event log", "memory://", 0),
                ("receiver, dedupe in memory", "memory://", 7),
                ("receiver, dedupe in Redis", running.redis.url, 7),
                ("receiver, dedupe in Postgres", running.postgres.url, 7),
            )
        ]
        yield [bare, *receivers]


@asynccontextmanager
async def bare_server(log: Path) -> AsyncIterator[Contestant]:
    port = free_port()
    async with process("-m", "tests.bench.bare", str(port), env=dict(os.environ), log=log) as pid:
        await eventually(
            lambda: answers(f"http://{LOOPBACK}:{port}/"), timeout_seconds=START_SECONDS, what="the baseline is up"
        )
        yield Contestant(BARE, pid, port)


@asynccontextmanager
async def receiver(
    name: str, deployed: Deployment, dedupe_url: str, folder: Path, *, event_log_days: int
) -> AsyncIterator[Contestant]:
    port, admin = free_port(), free_port()
    log = folder / f"receiver-{port}.log"
    env = {
        "PATH": os.environ["PATH"],
        "STRIPE_WEBHOOK_SECRET": TEST_SECRET.value,
        "STRIPE_INGEST__RECEIVER__HOST": LOOPBACK,
        "STRIPE_INGEST__RECEIVER__PORT": str(port),
        "STRIPE_INGEST__ADMIN__PORT": str(admin),
        "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": deployed.config.kafka.bootstrap_servers,
        "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": deployed.config.kafka.topic_prefix,
        "STRIPE_INGEST__DATABASE__URL": deployed.config.database_url,
        "STRIPE_INGEST__DEDUPE__URL": dedupe_url,
        "STRIPE_INGEST__EVENT_LOG__RETENTION_DAYS": str(event_log_days),
        "STRIPE_INGEST__LOGGING__FORMAT": "json",
        "STRIPE_INGEST__LOGGING__LEVEL": "info",
    }
    async with process("-m", "service", "receive", env=env, log=log) as pid:
        ready = f"http://{LOOPBACK}:{admin}/readyz"
        await eventually(lambda: answers(ready), timeout_seconds=START_SECONDS, what=f"{name} is ready")
        yield Contestant(name, pid, port, admin, log)


async def answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def bypassed(admin: int) -> int:
    """How many events a receiver has published without its dedupe store's word."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{LOOPBACK}:{admin}/metrics") as response:
        found = re.search(r"^stripe_ingest_dedupe_bypassed_total (\S+)$", await response.text(), re.MULTILINE)
    if found is None:
        raise LookupError("the receiver has no stripe_ingest_dedupe_bypassed_total")
    return int(float(found[1]))


def show(kind: Kind, names: Sequence[str], results: Mapping[tuple[str, str], Sequence[Measured]]) -> None:
    table = Table(title=f"{kind.name}, {kind.events:,} events a round", title_justify="left", box=None, pad_edge=False)
    table.add_column("server")
    for heading in ("CPU µs/event", "x bare", "events/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    baseline = results[kind.name, BARE]
    for name in names:
        own = results[kind.name, name]
        ratios = [mine.cpu / theirs.cpu for mine, theirs in zip(own, baseline, strict=True)]
        table.add_row(
            name,
            Spread([measured.cpu for measured in own]).shown(),
            Spread(ratios).shown(2),
            f"{Spread([measured.per_second for measured in own]).median:,.0f}",
            f"{Spread([measured.p50 for measured in own]).median:.1f}",
            f"{Spread([measured.p99 for measured in own]).median:.1f}",
        )
    console().print(table)
    console().print()


async def tell(competing: Sequence[Contestant], sent: int, rounds: int) -> None:
    """What the numbers stand on."""
    say(
        f"{machine()}; the load, Kafka, Postgres and Redis share them, so events/s and latency are this machine's.",
        f"Medians [quartiles] of {rounds} rounds after one to warm up. Each server answered all of its {sent:,} "
        "deliveries with 200 accepted.",
    )
    for contestant in competing:
        if contestant.admin is not None and contestant.log is not None:
            lines = contestant.log.read_bytes().count(b'"event":"delivery.accepted"')
            say(
                f"{contestant.name}: logging was on (JSON at info, to a file): {lines:,} lines of deliveries; "
                f"{await bypassed(contestant.admin):,} events bypassed dedupe."
            )


@click.command()
@click.option("--rounds", default=4, show_default=True, type=click.IntRange(1, 100), help="Counted rounds.")
@click.option("--events", default=3000, show_default=True, type=click.IntRange(100, 100_000), help="Of a closed loop.")
@click.option("--connections", default=32, show_default=True, type=click.IntRange(1, 200))
@click.option(
    "--rate", default=300, show_default=True, type=click.IntRange(1, 5000), help="Deliveries a second, paced."
)
def main(rounds: int, events: int, connections: int, rate: int) -> None:
    """CPU per event of the receiver, beside a bare aiohttp server."""
    uvloop.run(bench(rounds, events, connections, rate))


if __name__ == "__main__":
    main()
