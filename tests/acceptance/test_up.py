"""`up --simulate`, as a stranger runs it: everything starts, a shop's life is played once, everything stops."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import orjson
import pytest

from tests.support.processes import CommandLine
from tests.support.waiting import alive, descendants

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("java_cache")]

UP_SECONDS = 120


@asynccontextmanager
async def up(data: Path) -> AsyncIterator[str]:
    """What a running `up --simulate` has shown by the time it is up; Ctrl-C at the end of the block."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STRIPE_")}
    # Production's settings in somebody's shell must not lead the local stack there.
    env["STRIPE_INGEST__DATABASE__URL"] = "postgresql://production.invalid/payments"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "up", "--simulate", "--port", "0", "--data", str(data),
        env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    shown: list[str] = []
    try:
        async with asyncio.timeout(UP_SECONDS):
            while "Ctrl-C ends it" not in (shown[-1] if shown else ""):
                line = await process.stdout.readline()
                assert line, "".join(shown[-40:])
                shown.append(line.decode())
        family = descendants(process.pid)
        assert len(family) >= 6  # Kafka, Postgres, the receiver, three consumers
        yield "".join(shown)
        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, rest.decode()
        assert not [pid for pid in family if alive(pid)]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_up_plays_a_shop_once_shows_what_arrived_keeps_its_data_and_refuses_a_second_up_on_them(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"

    async with up(data) as first:
        stack = orjson.loads((data / "stack.json").read_bytes())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{stack['admin']}/readyz") as response:
                assert response.status == 200
            async with session.get(f"{stack['admin']}/metrics") as response:
                metrics = await response.text()
        connection = await asyncpg.connect(stack["database_url"])
        payments = await connection.fetch("SELECT payment_id, status FROM payments ORDER BY 1")
        await connection.close()
        sent, refused = await asyncio.gather(
            CommandLine({}).run("send", "charge.refunded", "--config", str(data / "stripe-ingest.toml")),
            CommandLine({}).run("up", "--port", "0", "--data", str(data)),
        )
    async with up(data) as second:
        pass

    assert {"receiver", "admin", "bootstrap_servers", "database_url"} <= stack.keys()
    assert 'stripe_ingest_deliveries_total{endpoint="stripe",outcome="accepted"} 92.0' in metrics
    assert len(payments) == 8
    assert '200 {"status":"accepted"' in sent.out
    for expected in (
        "accepted",
        "duplicate",
        "stripe.payments",
        "table payments (8)",
        "table refunds (4)",
        "Stripe CLI",
    ):
        assert expected in first
    assert "The data folder has a life of its own already" in second
    assert "table payments (9)" in second  # the one that `send` made, too
    assert not (data / "stack.json").exists()
    for secret in ("stripe-ingest.toml", "webhook-secret"):
        assert stat.S_IMODE((data / secret).stat().st_mode) == 0o600
    # A second one on the same folder was refused in a sentence, and the first one has not minded.
    assert refused.code == 2
    assert "another `stripe-ingest up` runs on" in refused.err
    assert "Traceback" not in refused.err
    assert (data / "webhook-secret").read_text("utf-8").strip() not in first + second
