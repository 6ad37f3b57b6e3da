"""Composition of a receiver: what serves, what runs beside it, and how it ends."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeAlias

import msgspec
import structlog
from aiohttp import web

from service.admin import build_admin, cannot_listen, serve_admin
from service.bootstrap.certificates import show_kafka_certificates
from service.bootstrap.ingest import composed_ingest
from service.bootstrap.page import operator_page
from service.config import Config, allowed_networks
from service.hangup import hangups
from service.receiver.accepting import accepting, connections_max
from service.receiver.http import RUNNER_OPTIONS, Limits, Receiver, build_app
from service.receiver.reloading import Load, Reloading, Trigger, warn_of_missing_secrets
from service.stopping import stop_signals
from service.telemetry.loop_lag import measure_loop_lag
from service.telemetry.metrics import EventLogMetrics, ProcessRegistry, PublisherMetrics, ReceiverMetrics, registry

BACKLOG: Final = 1024
OPEN_FILES_UNBOUNDED: Final = 10_240
"""Taken where there is no hard limit: a kernel has a bound of its own, and refuses more than that."""

Companion: TypeAlias = Callable[[Callable[[], Config], ProcessRegistry], Coroutine[Any, Any, None]]
"""What runs in a receiver's process beside it, with metrics on the receiver's admin side.

It asks for the configuration whenever it needs it: endpoints, and what is theirs, change while it runs.
"""

_log: Final = structlog.get_logger("service.process")


async def receive_until_told(config: Config, beside: Sequence[Companion], load: Load) -> None:
    """Run a receiver until SIGTERM or SIGINT, then drain: answer what is in flight, take nothing new.

    On SIGHUP it loads its configuration anew, and takes the endpoints of it.
    """
    asked = asyncio.Event()
    async with stop_signals() as stop:
        with hangups(again=asked.set, end=stop.set):
            async with receiver(config, beside, load=load, asked=asked):
                _log.info("receiver.started", host=config.receiver.host, port=config.receiver.port)
                await stop.wait()
                _log.info("receiver.stopping")
    _log.info("receiver.stopped")


def worker(config: Config, index: int) -> Config:
    """The configuration of one of several workers: its admin side has a port of its own."""
    return msgspec.structs.replace(
        config, admin=msgspec.structs.replace(config.admin, port=config.admin.port + index if config.admin.port else 0)
    )


@asynccontextmanager
async def receiver(
    config: Config, beside: Sequence[Companion] = (), *, load: Load | None = None, asked: asyncio.Event | None = None
) -> AsyncIterator[str]:
    """A receiver that serves inside the block, and drains at its end; its public URL. `beside` run as long as it.

    With `load` it takes new endpoints and secrets: whenever `asked` is set, and when the secret store's file changes.
    """
    endpoints = config.webhook_endpoints()
    metrics_registry = registry()
    metrics = ReceiverMetrics(metrics_registry)
    async with AsyncExitStack() as stack:
        ingest, publisher = await stack.enter_async_context(
            composed_ingest(config, metrics, PublisherMetrics(metrics_registry), EventLogMetrics(metrics_registry))
        )
        show_kafka_certificates(config, metrics_registry)
        public = Receiver(
            endpoints={endpoint.path: endpoint for endpoint in endpoints},
            ingest=ingest,
            limits=Limits(
                max_body_bytes=config.receiver.max_body_bytes,
                max_in_flight=config.receiver.max_in_flight,
                answer_timeout_seconds=config.receiver.answer_timeout_seconds,
            ),
            metrics=metrics,
            allowed_networks=allowed_networks(config.receiver.allow_ips),
        )

        def problems() -> list[str]:
            found = ["shutting down"] if public.draining else []
            return found + ([publisher.problem] if publisher.problem else [])

        reloading = Reloading(config, load or (lambda: config), public.serve, metrics)
        page = await stack.enter_async_context(
            operator_page(reloading.current, metrics_registry, lambda: tuple(public.endpoints.values()), problems)
        )
        admin = await serve_admin(build_admin(metrics_registry, problems, page), config.admin.host, config.admin.port)
        stack.push_async_callback(admin.cleanup)
        warn_of_missing_secrets(endpoints)
        if load is not None:
            # What it was started with may be old by now: Kafka has kept it waiting, or it succeeds another worker.
            await reloading.reload(Trigger.START)
        tasks = [asyncio.create_task(each(reloading.current, metrics_registry), name="beside") for each in beside]
        tasks.append(asyncio.create_task(measure_loop_lag(metrics_registry.loop_lag), name="loop lag"))
        if load is not None:
            tasks.append(asyncio.create_task(reloading.run(asked or asyncio.Event()), name="reloading"))
        stack.push_async_callback(_end, tasks, config.receiver.shutdown_timeout_seconds)
        url = await stack.enter_async_context(_public_listener(public, config))
        try:
            yield url
        finally:
            for task in tasks:
                task.cancel()  # what it still has to tidy up must not keep the receiver from draining


async def _end(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    for task in tasks:
        if not task.cancelling():  # a second time would cut its tidying up short
            task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


@asynccontextmanager
async def _public_listener(public: Receiver, config: Config) -> AsyncIterator[str]:
    timeout_seconds = config.receiver.shutdown_timeout_seconds
    most = connections_max(raise_open_files())
    runner = web.AppRunner(build_app(public), shutdown_timeout=timeout_seconds, **RUNNER_OPTIONS)
    await runner.setup()
    try:
        listener = await _listen(accepting(runner, most=most, refused=public.metrics.connections_refused.inc), config)
        try:
            host, port = listener.sockets[0].getsockname()[:2]
            yield f"http://{host}:{port}"
        finally:
            listener.close()
    finally:
        # Kept-alive connections get 503 from here on; the clean-up waits for the deliveries in flight.
        public.draining = True
        await runner.cleanup()


async def _listen(accept: Callable[[], asyncio.Protocol], config: Config) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            accept,
            config.receiver.host,
            config.receiver.port,
            backlog=BACKLOG,
            reuse_port=config.receiver.workers > 1,
        )
    except OSError as error:
        raise cannot_listen("receiver", error) from None


def raise_open_files() -> int:
    """Take as many descriptors as this process may have, which is seldom what it is started with; say how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_UNBOUNDED if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:
        _log.warning("process.open_files", limit=soft, wanted=wanted, reason=str(error))
        return soft
    _log.info("process.open_files", limit=wanted, before=soft)
    return wanted
