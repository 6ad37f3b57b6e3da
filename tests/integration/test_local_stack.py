"""The whole of `up`, as a process of its own: started, killed, started again on the same data, stopped."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from service.local.errors import DataFolderInUse
from service.local.stack import Stack, StackOptions, run_stack
from tests.support.waiting import alive, descendants, eventually

START_SECONDS = 100.0

PROGRAM = """
import asyncio, os, pathlib, sys
from service.bootstrap import kafka as bootstrap_kafka, migrations as bootstrap_migrations
from service.config import load
from service.local.stack import StackOptions, run_stack

async def prepare(stack):
    config = load(None, stack.environment(os.environ))
    await asyncio.to_thread(bootstrap_migrations.migrate, config)
    await bootstrap_kafka.apply_topics(config)

async def started(stack):
    print("started", flush=True)

options = StackOptions(data_dir=pathlib.Path(sys.argv[1]), port=0, projections=("refunds",))
asyncio.run(run_stack(options, prepare=prepare, started=started))
print("stopped", flush=True)
"""


@asynccontextmanager
async def up(data_dir: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running stack; killed at the end if the test has not ended it."""
    # What a killed stack has left lies about its successor until that has come as far as removing it.
    (data_dir / "stack.json").unlink(missing_ok=True)
    environment = os.environ | {"STRIPE_WEBHOOK_SECRET": "whsec_test"}
    with (data_dir.parent / "up.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(data_dir), env=environment, stdout=log, stderr=log
        )
    try:
        await eventually(
            lambda: (data_dir / "stack.json").exists() or process.returncode is not None,
            what="the stack has started",
            timeout_seconds=START_SECONDS,
        )
        assert process.returncode is None, (data_dir.parent / "up.log").read_text("utf-8")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def addresses(data_dir: Path) -> dict[str, str]:
    found: dict[str, str] = orjson.loads((data_dir / "stack.json").read_bytes())
    return found


async def no_hook(_: Stack) -> None:
    raise AssertionError("nothing may start")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("java_cache")
async def test_up_starts_survives_a_kill_with_its_data_and_stops_leaving_nothing_behind(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with up(data_dir) as first:
        before = addresses(data_dir)
        assert set(before) == {"receiver", "admin", "bootstrap_servers", "database_url"}
        async with aiohttp.ClientSession() as session, session.get(f"{before['admin']}/readyz") as answer:
            assert answer.status == 200
        assert await unchanged_reloads(before) == 1  # at its start
        first.send_signal(signal.SIGHUP)

        async def reloaded() -> bool:
            return await unchanged_reloads(before) == 2

        await eventually(reloaded, what="the receiver has read its configuration again")
        await leave_a_trace(before)
        with pytest.raises(DataFolderInUse, match="another `stripe-ingest up` runs on"):
            await run_stack(StackOptions(data_dir=data_dir, port=0), prepare=no_hook, started=no_hook)
        processes = descendants(first.pid)
        first.kill()
        await first.wait()
        await eventually(lambda: not any(map(alive, processes)), what="no process outlives a killed stack")

    async with up(data_dir) as second:
        after = addresses(data_dir)
        await find_the_trace(after)
        processes = descendants(second.pid)
        second.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_SECONDS):
            code = await second.wait()

    output = (tmp_path / "up.log").read_text("utf-8")
    assert code == 0, output
    assert output.endswith("stopped\n")
    assert not any(map(alive, processes))
    assert not (data_dir / "stack.json").exists()
    assert before["database_url"].rpartition("@")[0] == after["database_url"].rpartition("@")[0]


async def unchanged_reloads(addresses: dict[str, str]) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{addresses['admin']}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    name = 'stripe_ingest_reloads_total{outcome="unchanged"} '
    (value,) = (line.removeprefix(name) for line in lines if line.startswith(name))
    return float(value)


async def leave_a_trace(addresses: dict[str, str]) -> None:
    connection = await asyncpg.connect(addresses["database_url"])
    try:
        await connection.execute("CREATE TABLE kept AS SELECT 'here' AS what")
    finally:
        await connection.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses["bootstrap_servers"])
    await admin.start()
    try:
        await admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def find_the_trace(addresses: dict[str, str]) -> None:
    connection = await asyncpg.connect(addresses["database_url"])
    try:
        assert await connection.fetchval("SELECT what FROM kept") == "here"
    finally:
        await connection.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses["bootstrap_servers"])
    await admin.start()
    try:
        assert {"kept", "stripe.payments"} <= set(await admin.list_topics())
    finally:
        await admin.close()
