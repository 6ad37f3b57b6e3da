"""A real Prometheus that scrapes what a test runs: its queries, its rules, its alerts."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from tests.support.waiting import eventually, free_port
from tests.tools import prometheus as program

READY_SECONDS_MAX: Final = 30.0
_STOP_SECONDS_MAX: Final = 10.0
_ANSWER_SECONDS_MAX: Final = 20.0
_LOG_CHARACTERS_SHOWN: Final = 2000
_BOUNDS: Final = {"GOMAXPROCS": "1", "GOMEMLIMIT": "256MiB"}
"""It shares a small machine with brokers, databases and what is tested."""


class QueryRefusedError(AssertionError):
    """Prometheus would not answer a query; says why."""


@dataclass(frozen=True)
class Job:
    """What is scraped under one job's name: addresses as `host:port`, or URLs of processes' admin side."""

    name: str
    targets: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One value of an instant query; `name` and the other labels are in `labels`."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Series:
    """One series of a range query: (Unix time, value), oldest first."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Alert:
    """An alert that is pending or firing, its annotations' templates filled in."""

    name: str
    state: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Exemplar:
    """One example that a series has: its own labels, such as trace_id, and the value that it is an example of."""

    series: Mapping[str, str]
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """One that runs. Its clock is the machine's."""

    url: str
    _targets: frozenset[str]
    _session: aiohttp.ClientSession

    async def instant(self, query: str, *, at: float | None = None) -> Sequence[Sample]:
        """What the query gives now, or at that Unix time; a scalar is one sample without labels."""
        found = await self._get("query", query=query, **({} if at is None else {"time": repr(at)}))
        if found["resultType"] == "scalar":
            return [Sample({}, float(found["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    async def value(self, query: str) -> float | None:
        """The one value that the query gives now; None where it gives none."""
        found = await self.instant(query)
        assert len(found) <= 1, f"{query}: several series where one was asked for: {found}"
        return found[0].value if found else None

    async def range(self, query: str, *, start: float, end: float, step_seconds: float = 1.0) -> Sequence[Series]:
        """What the query gives from `start` to `end`, both Unix times."""
        found = await self._get("query_range", query=query, start=repr(start), end=repr(end), step=repr(step_seconds))
        return [Series(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in found["result"]]

    async def exemplars(self, query: str, *, start: float, end: float) -> Sequence[Exemplar]:
        """The exemplars of the series that a query reads."""
        found = await self._get("query_exemplars", query=query, start=repr(start), end=repr(end))
        return [
            Exemplar(series["seriesLabels"], one["labels"], float(one["value"]))
            for series in found
            for one in series["exemplars"]
        ]

    async def alerts(self) -> Sequence[Alert]:
        """All that are pending or firing."""
        return [
            Alert(one["labels"]["alertname"], one["state"], one["labels"], one["annotations"])
            for one in (await self._get("alerts"))["alerts"]
        ]

    async def firing(self) -> frozenset[str]:
        """The names of the alerts that fire."""
        return frozenset(alert.name for alert in await self.alerts() if alert.state == "firing")

    async def broken_rules(self) -> Mapping[str, str]:
        """What Prometheus says of each rule that it could not evaluate."""
        groups = (await self._get("rules"))["groups"]
        return {
            rule["name"]: rule.get("lastError", "") for group in groups for rule in group["rules"]
            if rule["health"] == "err"
        }  # fmt: skip

    async def up(self) -> Mapping[str, bool]:
        """Each target's address, and whether its last scrape went well; none that has not been tried yet."""
        return {sample.labels["instance"]: sample.value == 1 for sample in await self.instant("up")}

    async def all_up(self, *, timeout_seconds: float = READY_SECONDS_MAX) -> None:
        """Return once every target's last scrape went well, and its samples can be queried."""

        async def scraped() -> bool:
            return await self.up() == dict.fromkeys(self._targets, True)

        await eventually(scraped, timeout_seconds=timeout_seconds, what="Prometheus has scraped every target")

    async def _get(self, what: str, **parameters: str) -> Any:
        async with (
            self._session.post(f"{self.url}/api/v1/{what}", data=parameters)
            if parameters
            else (self._session.get(f"{self.url}/api/v1/{what}")) as response
        ):
            answer = await response.json()
        if answer["status"] != "success":
            msg = f"{parameters.get('query', what)}: {answer['error']}"
            raise QueryRefusedError(msg)
        return answer["data"]


@asynccontextmanager
async def prometheus(
    folder: Path,
    jobs: Sequence[Job],
    *,
    rule_files: Sequence[Path] = (),
    scrape_interval: str = "1s",
    evaluation_interval: str = "1s",
) -> AsyncIterator[Prometheus]:
    """One on a free port of the loopback, its data in `folder`, which is the test's own; it has ended afterwards.

    It fails, with what it logged, where it does not start: rule files that are wrong, mostly.
    """
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        yaml.safe_dump(_configuration(jobs, rule_files, scrape_interval, evaluation_interval)), encoding="utf-8"
    )
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **_BOUNDS},
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ANSWER_SECONDS_MAX)) as session:
            targets = frozenset(_address(target) for job in jobs for target in job.targets)
            running = Prometheus(f"http://127.0.0.1:{port}", targets, session)

            async def ready() -> bool:
                assert process.returncode is None, f"Prometheus did not start: {_said(log)}"
                try:
                    async with session.get(f"{running.url}/-/ready") as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(ready, timeout_seconds=READY_SECONDS_MAX, what="Prometheus is ready")
            yield running
    finally:
        await _ended(process)


def _configuration(
    jobs: Sequence[Job], rule_files: Sequence[Path], scrape_interval: str, evaluation_interval: str
) -> Mapping[str, Any]:
    return {
        "global": {
            "scrape_interval": scrape_interval,
            "scrape_timeout": scrape_interval,
            "evaluation_interval": evaluation_interval,
        },
        "rule_files": [str(path) for path in rule_files],
        "scrape_configs": [
            {
                "job_name": job.name,
                "static_configs": [
                    {"targets": [_address(target) for target in job.targets], "labels": dict(job.labels)}
                ],
            }
            for job in jobs
        ],
    }


def _address(target: str) -> str:
    return target.removeprefix("http://").rstrip("/")


def _said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS_SHOWN:]


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
