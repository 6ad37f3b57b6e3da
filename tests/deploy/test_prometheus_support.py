"""The Prometheus of the tests is a real one."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.local.ports import free_port
from tests.support.prometheus import Job, QueryRefusedError, prometheus
from tests.support.waiting import eventually

RULES = """
groups:
  - name: test
    rules:
      - {record: "test:rate", expr: "sum(rate(test_total[5s]))"}
      - {alert: Seen, expr: "test_total > 2", labels: {severity: info}, annotations: {summary: "{{ $value }} seen"}}
"""


@pytest.fixture
async def scraped() -> AsyncIterator[str]:
    registry = CollectorRegistry()
    Counter("test_total", "Three.", registry=registry).inc(3)
    Histogram("test_seconds", "One.", registry=registry).observe(0.3, {"trace_id": "0af7"})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry),  # type: ignore[no-untyped-call]
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def test_what_a_process_shows_is_scraped_queried_and_ruled_on(scraped: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES, encoding="utf-8")
    began = time.time()

    async with prometheus(tmp_path, [Job("tested", [scraped], {"kind": "fake"})], rule_files=[rules]) as server:
        await server.all_up()
        (sample,) = await server.instant("test_total")
        assert (sample.value, sample.labels["job"], sample.labels["kind"]) == (3, "tested", "fake")
        assert await server.value("sum(test_total)") == 3
        assert await server.value("no_such_metric") is None

        async def recorded() -> bool:
            return await server.value("test:rate") is not None

        await eventually(recorded, timeout_seconds=20, what="the recording rule")
        await eventually(server.firing, timeout_seconds=20, what="the alert")
        assert await server.broken_rules() == {}
        assert [alert.annotations["summary"] for alert in await server.alerts()] == ["3 seen"]
        (series,) = await server.range("test_total", start=began, end=time.time())
        assert {value for _, value in series.points} == {3}
        (exemplar,) = await server.exemplars("test_seconds_bucket", start=began - 60, end=time.time())
        assert exemplar.labels == {"trace_id": "0af7"}
        with pytest.raises(QueryRefusedError, match="parse error"):
            await server.instant("sum(")


async def test_a_rule_file_that_is_wrong_ends_the_start_with_what_prometheus_says(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: wrong, rules: [{record: r, expr: 'sum('}]}]", encoding="utf-8")

    with pytest.raises(AssertionError, match="parse error"):
        async with prometheus(tmp_path, [], rule_files=[rules]):
            pass
