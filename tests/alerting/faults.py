"""What is done to a deployment: small pieces that scenarios are made of."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from service.simulator.objects import Object
from tests.alerting.traffic import payment
from tests.alerting.world import World


async def again_and_again(step: Callable[[], Awaitable[object]], *, every_seconds: float) -> None:
    """Do a step, and do it again, until cancelled."""
    while True:
        await step()
        await asyncio.sleep(every_seconds)


def changed(**values: Any) -> Callable[[int], Object]:
    """Payments with other values in the event itself."""
    return lambda number: payment(number) | values


def with_object(**values: Any) -> Callable[[int], Object]:
    """Payments with other values in their object."""

    def made(number: int) -> Object:
        event = payment(number)
        event["data"]["object"] |= values
        return event

    return made


async def stand_still(pause: Callable[[], object], resume: Callable[[], object], *, seconds: float) -> None:
    """Have a server or a process stand still for so long, and go on whatever happens: the time is the fault."""
    pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        resume()


async def stop_and_go(
    pause: Callable[[], object], resume: Callable[[], object], *, stopped: float, going: float
) -> None:
    """Have a server or a process stand still for a while, again and again, until cancelled."""
    await again_and_again(lambda: stand_still(pause, resume, seconds=stopped), every_seconds=going)


@asynccontextmanager
async def database_of(world: World) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection to the deployment's database."""
    connection = await asyncpg.connect(world.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def hold_table(world: World, table: str) -> None:
    """Keep everybody else from a table until cancelled."""
    async with database_of(world) as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        await asyncio.Event().wait()


async def execute(world: World, statement: str) -> None:
    """Change something in the deployment's database by hand."""
    async with database_of(world) as connection:
        await connection.execute(statement)


async def garbage(world: World, count: int) -> None:
    """Put records on the payments topic that nobody can read."""
    producer = AIOKafkaProducer(bootstrap_servers=world.servers.kafka.bootstrap_servers, acks="all")
    await producer.start()
    try:
        for number in range(count):
            await producer.send_and_wait(world.topics.of("payment"), b"no event", key=str(number).encode(), partition=0)
    finally:
        await producer.stop()


async def post(url: str, headers: Mapping[str, str], body: bytes = b"{}") -> int:
    """A request that Stripe would not make."""
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        await response.read()
        return response.status


async def join_and_leave(world: World, projection: str) -> None:
    """Be a member of a projection's consumer group for a moment: its partitions are given out anew, twice."""
    consumer = AIOKafkaConsumer(
        world.topics.of("payment"),
        bootstrap_servers=world.servers.kafka.bootstrap_servers,
        group_id=world.topics.group(projection),
        enable_auto_commit=False,
    )
    await consumer.start()
    await consumer.stop()
