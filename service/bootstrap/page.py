"""Composition of the operator's page, beside a receiver: nothing of it is dialled before somebody looks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from service.adapters.postgres_page import PostgresOperatorReader
from service.admin import Part, Problems
from service.bootstrap import kafka as bootstrap_kafka
from service.bootstrap.redrive import Side, body_step, dead_letter_step, dead_letters, quarantine
from service.clock import SystemClock
from service.config import Config
from service.events import Endpoint
from service.page.access import Access
from service.page.consumers import Consumers
from service.page.files import read_files
from service.page.http import Page, add_page
from service.page.live import Live
from service.page.parked import Parking, ParkingPlace
from service.page.sessions import Sessions, Throttle
from service.ports import OperatorReader
from service.projections import PROJECTIONS
from service.records import Topics
from service.recovery.redrive import Step
from service.telemetry.metrics import PageMetrics
from service.telemetry.traces import traced

_log: Final = structlog.get_logger("service.page")


@asynccontextmanager
async def operator_page(
    current: Callable[[], Config],
    registry: CollectorRegistry,
    endpoints: Callable[[], Iterable[Endpoint]],
    problems: Problems,
) -> AsyncIterator[Part | None]:
    """The page as a part of the admin application; None where it cannot be had, which keeps no receiver from receiving.

    At the block's end no replay is begun any more, and connections are given back, in bounded time.
    """
    async with AsyncExitStack() as stack:
        part: Part | None = None
        try:
            part = partial(add_page, page=await _composed(stack, current, registry, endpoints, problems))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the receiver starts
            _log.error("page.off", **traced(error))
        yield part


async def _composed(
    stack: AsyncExitStack,
    current: Callable[[], Config],
    registry: CollectorRegistry,
    endpoints: Callable[[], Iterable[Endpoint]],
    problems: Callable[[], Sequence[str]],
) -> Page:
    config, clock, metrics = current(), SystemClock(), PageMetrics(registry)
    files = await asyncio.to_thread(read_files)
    reader: OperatorReader | None = None
    if config.database.url is not None:
        reader = PostgresOperatorReader(config.database.url.value)
        stack.push_async_callback(reader.close)
    topics = Topics(config.kafka.topic_prefix)
    places = {
        "dead-letter": _place("dead_letter", dead_letters(config), current, _dead_letter_step),
        "quarantine": _place("quarantine", quarantine(config), current, _body_step),
    }
    consumers = Consumers(
        {
            name: (topics.group(name), [topics.of(category) for category in projection.categories])
            for name, projection in PROJECTIONS.items()
        },
        partial(bootstrap_kafka.record_log, config),
        reader,
        clock,
        {name: place.topic for name, place in places.items()},
    )
    stack.push_async_callback(consumers.close)
    parking = Parking(metrics)
    stack.push_async_callback(parking.close)
    live = Live(registry, clock, endpoints=endpoints, problems=problems)
    sampling = asyncio.create_task(live.run(), name="page-live")
    stack.push_async_callback(_ended, sampling)
    return Page(
        version=version("stripe-ingest"),
        access=Access(token=config.admin.token, admin_host=config.admin.host, allowed_hosts=config.admin.allowed_hosts),
        sessions=Sessions(clock.monotonic),
        throttle=Throttle(clock.monotonic),
        live=live,
        consumers=consumers,
        reader=reader,
        parking=parking,
        places=places,
        files=files,
        metrics=metrics,
    )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _place(
    name: str,
    side: Side,
    current: Callable[[], Config],
    step: Callable[[Config, bool], AbstractAsyncContextManager[Step]],
) -> ParkingPlace:
    # Each replay asks for the configuration: endpoints, and the secrets that are theirs, change while it runs.
    return ParkingPlace(
        name=name,
        topic=side.topic,
        describe=side.describe,
        open_log=lambda: bootstrap_kafka.record_log(current()),
        step=lambda dry_run: step(current(), dry_run),
    )


def _dead_letter_step(config: Config, dry_run: bool) -> AbstractAsyncContextManager[Step]:
    return dead_letter_step(config, dry_run=dry_run)


def _body_step(config: Config, dry_run: bool) -> AbstractAsyncContextManager[Step]:
    return body_step(config, dry_run=dry_run)
