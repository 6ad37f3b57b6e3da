"""The receiver as a process: its answers to signals, its workers, its exit codes."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping

import aiohttp
import orjson

from service.bootstrap.receiver import receiver
from service.local.ports import free_port
from service.signature import sign
from service.simulator.events import sample
from tests.support.deployment import TEST_SECRET, Deployment
from tests.support.processes import CommandLine
from tests.support.waiting import alive, descendants, eventually


def environment(deployed: Deployment, **settings: str) -> Mapping[str, str]:
    config = deployed.config
    return {
        "STRIPE_WEBHOOK_SECRET": TEST_SECRET.value,
        "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": config.kafka.bootstrap_servers,
        "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": config.kafka.topic_prefix,
        "STRIPE_INGEST__DATABASE__URL": config.database_url,
        "STRIPE_INGEST__LOGGING__FORMAT": "json",
    } | settings


async def ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def deliver(session: aiohttp.ClientSession, port: int, seed: int) -> int:
    body = orjson.dumps(sample("payment_intent.succeeded", seed=seed, created=int(time.time())))
    headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time())), "Connection": "close"}
    async with session.post(f"http://127.0.0.1:{port}/webhooks/stripe", data=body, headers=headers) as response:
        await response.read()
        return response.status


async def test_sigterm_under_load_answers_everyone_and_exits_with_0(deployed: Deployment) -> None:
    port, admin = free_port(), free_port()
    env = environment(deployed, STRIPE_INGEST__RECEIVER__PORT=str(port), STRIPE_INGEST__ADMIN__PORT=str(admin))
    answered: list[int] = []

    async def client(session: aiohttp.ClientSession, first: int) -> None:
        for seed in range(first, 1_000_000, 8):
            try:
                answered.append(await deliver(session, port, seed))
            except aiohttp.ClientConnectionError:
                return

    async with CommandLine(env).running("receive") as receiver, aiohttp.ClientSession() as session:
        await eventually(lambda: ready(session, admin), timeout_seconds=30, what="the receiver is ready")
        async with asyncio.TaskGroup() as clients:
            for first in range(8):
                clients.create_task(client(session, first))
            await eventually(lambda: len(answered) > 50, timeout_seconds=30, what="load")
            receiver.terminate()
        assert await asyncio.wait_for(receiver.wait(), 30) == 0

    assert set(answered) <= {200, 503}
    assert len(await deployed.records()) == answered.count(200)


async def test_workers_share_the_port_and_a_dead_one_is_replaced(deployed: Deployment) -> None:
    port, admin = free_port(), free_port()
    env = environment(
        deployed,
        STRIPE_INGEST__RECEIVER__PORT=str(port),
        STRIPE_INGEST__ADMIN__PORT=str(admin),
        STRIPE_INGEST__RECEIVER__WORKERS="2",
    )
    async with CommandLine(env).running("receive") as master, aiohttp.ClientSession() as session:
        for number in (admin, admin + 1):
            await eventually(lambda n=number: ready(session, n), timeout_seconds=30, what="a worker is ready")
        assert {await deliver(session, port, seed) for seed in range(20)} == {200}
        before = descendants(master.pid)
        assert len(before) == 2

        os.kill(min(before), signal.SIGKILL)
        await eventually(
            lambda: len(descendants(master.pid)) == 2 and descendants(master.pid) != before,
            timeout_seconds=30,
            what="the successor",
        )
        for number in (admin, admin + 1):
            await eventually(lambda n=number: ready(session, n), timeout_seconds=30, what="both are ready again")
        workers = descendants(master.pid)
        master.terminate()
        assert await asyncio.wait_for(master.wait(), 30) == 0
        assert not any(alive(pid) for pid in workers)


async def test_a_bad_value_is_one_message_and_exit_2() -> None:
    """All the messages there are: tests/unit/test_command_line.py."""
    command = CommandLine({"STRIPE_WEBHOOK_SECRET": "nonsense", "STRIPE_INGEST__DATABASE__URL": "postgresql://h/d"})

    refused, unknown = await asyncio.gather(command.run("receive"), command.run("consume", "paymets"))

    assert (refused.code, unknown.code) == (2, 2)
    assert "endpoints[0] (stripe).secrets: a signing secret begins" in refused.err
    assert "Invalid value" in unknown.err
    assert "Traceback" not in refused.err + unknown.err


async def test_a_port_that_is_taken_is_said(deployed: Deployment) -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    taken = server.sockets[0].getsockname()[1]
    env = environment(deployed, STRIPE_INGEST__RECEIVER__PORT=str(taken), STRIPE_INGEST__ADMIN__PORT=str(free_port()),
                      STRIPE_INGEST__RECEIVER__HOST="127.0.0.1")  # fmt: skip

    async with server, CommandLine(env).running("receive") as refused:
        assert refused.stderr is not None
        said = await asyncio.wait_for(refused.stderr.read(), 30)
        assert await refused.wait() == 2

    assert b"receiver.host, receiver.port: cannot listen there" in said


async def test_a_receiver_drains_before_what_runs_beside_it_has_ended(deployed: Deployment) -> None:
    began, refused = asyncio.Event(), asyncio.Event()
    urls: list[str] = []

    async def beside(*_: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await eventually(closed, what="the receiver takes nothing any more")
            refused.set()

    async def closed() -> bool:
        host, _, port = urls[0].removeprefix("http://").rpartition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionError:
            return True
        writer.close()
        return False

    async with receiver(deployed.config, [beside]) as url:
        urls.append(url)
        await began.wait()

    assert refused.is_set()
