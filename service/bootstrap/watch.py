"""Composition of what looks at the webhook endpoints at Stripe: once for a command, again and again for a receiver."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final

import structlog
from prometheus_client import Gauge

from service.adapters.http_probe import HttpUrlProbe
from service.bootstrap.endpoints import chosen, clients, store_of
from service.bootstrap.stripe import stripe_reader
from service.clock import SystemClock
from service.config import Config
from service.errors import IngestError
from service.stripe_account.api_keys import event_keys
from service.stripe_account.endpoint_look import Failure, Looked, Looking, ReadEvents, SeenAccount
from service.stripe_account.endpoint_problems import EndpointProblem, EndpointStatus
from service.telemetry.metrics import EndpointMetrics, ProcessRegistry
from service.telemetry.traces import traced

FIRST_LOOK_SECONDS: Final = 15.0
"""After the start of a receiver, until it is looked at for the first time: it has to listen before it can answer."""

_log: Final = structlog.get_logger("service.endpoints")


@asynccontextmanager
async def looking(config: Config) -> AsyncIterator[Looking]:
    """What a look needs, inside the block. `config` has what its store adds to it.

    Raises `ConfigurationError` where no endpoint has an API key, or one is wrong.
    """
    credentials = await asyncio.to_thread(store_of(config).read)
    accounts = chosen(config, credentials).accounts
    async with AsyncExitStack() as stack:
        probe = HttpUrlProbe()
        stack.push_async_callback(probe.close)
        opened = await stack.enter_async_context(clients(config, accounts))
        events = []
        for keyed in event_keys(config):
            reader = stripe_reader(config, keyed.key)
            stack.push_async_callback(reader.close)
            events.append(ReadEvents(keyed.mode, tuple(each.name for each in keyed.endpoints), reader))
        seen = [SeenAccount(account.mode, account.names, endpoints) for account, endpoints in opened]
        yield Looking(config, credentials, seen, events, probe, SystemClock())


async def keep_watched(current: Callable[[], Config], registry: ProcessRegistry) -> None:
    """Look at the endpoints at Stripe again and again, until cancelled; where that is switched off, end.

    Every replica does this for itself: what it sees is on its own metrics. Each look asks for the configuration.
    """
    seconds = current().stripe.watch_interval_seconds
    if not seconds:
        return
    watch: Watch | None = None
    await asyncio.sleep(min(seconds, FIRST_LOOK_SECONDS))
    while True:
        config = current()
        if not _with_keys(config):
            # Who has no keys is not to be told that nobody looks.
            if watch is not None:
                watch.end()
            watch = None
        else:
            watch = watch or Watch(EndpointMetrics(registry), registry.certificate_not_after)
            await watch.one(config)
        await asyncio.sleep(seconds)


class Watch:
    """What one process sees of the endpoints, from look to look, in its metrics and its log."""

    def __init__(self, metrics: EndpointMetrics, certificate_not_after: Gauge) -> None:
        self._metrics = metrics
        self._certificate_not_after = certificate_not_after
        self._known: dict[str, Mapping[EndpointProblem, str]] = {}
        """Name → what is wrong with the endpoint."""

    def end(self) -> None:
        """Forget what was seen."""
        for name in tuple(self._known):
            self._forget(name)
        self._metrics.withdraw()

    async def one(self, config: Config) -> None:
        """Look once. Raises nothing: whatever fails is logged, and counted where it is an account's."""
        with_keys = _with_keys(config)
        for name in self._known.keys() - with_keys:
            self._forget(name)
        with _surviving():
            async with looking(config) as made:
                self._show(made, await made.look())

    def _show(self, made: Looking, looked: Looked) -> None:
        for endpoint in looked.status.endpoints:
            self._tell(endpoint)
        for name, ends in looked.certificates.items():
            # What could not be seen this time is as it was: an endpoint that cannot be reached expires all the same.
            self._certificate_not_after.labels(f"endpoint/{name}").set(ends.timestamp())
        failed = {(failure.account, failure.mode) for failure in looked.failures}
        for failure in looked.failures:
            self._failed(failure)
        for account in looked.status.accounts:
            if (account.account, account.mode) not in failed:
                self._metrics.runs.labels(account.account, account.mode, "done").inc()
        if not failed:
            self._metrics.watched.set(made.clock.now().timestamp())

    def _failed(self, failure: Failure) -> None:
        self._metrics.runs.labels(failure.account, failure.mode, failure.error.tag).inc()
        _log.warning(
            "endpoint.not_looked_at",
            account=failure.account,
            mode=failure.mode,
            endpoints=list(failure.names),
            reason=failure.error.tag,
            detail=str(failure.error),
        )

    def _tell(self, endpoint: EndpointStatus) -> None:
        """Set its metrics, and log what is news. What is not known is as it was."""
        before = self._known.get(endpoint.name, {})
        now = {problem.kind: problem.said for problem in endpoint.problems}
        if endpoint.undelivered is not None:
            self._metrics.undelivered.labels(endpoint.name).set(endpoint.undelivered.count)
        elif endpoint.endpoint_id is not None and EndpointProblem.UNDELIVERED in before:
            now[EndpointProblem.UNDELIVERED] = before[EndpointProblem.UNDELIVERED]
        for problem in EndpointProblem:
            self._metrics.problem.labels(endpoint.name, problem.value).set(problem in now)
        for problem in now.keys() - before.keys():
            _log.warning("endpoint.problem", endpoint=endpoint.name, problem=problem.value, detail=now[problem])
        for problem in before.keys() - now.keys():
            _log.info("endpoint.problem_ended", endpoint=endpoint.name, problem=problem.value)
        self._known[endpoint.name] = now

    def _forget(self, name: str) -> None:
        """Nobody looks at it any more: its series go away."""
        del self._known[name]
        for problem in EndpointProblem:
            self._metrics.problem.remove(name, problem.value)
        self._metrics.undelivered.remove(name)
        self._certificate_not_after.remove(f"endpoint/{name}")


def _with_keys(config: Config) -> frozenset[str]:
    return frozenset(endpoint.name for endpoint in config.endpoints if endpoint.api_key is not None)


@contextmanager
def _surviving() -> Iterator[None]:
    """Go on after whatever fails inside: deliveries are received, and the next look comes."""
    try:
        yield
    except IngestError as error:
        _log.warning("endpoint.watch_failed", reason=error.tag, detail=str(error))
    except Exception as error:  # noqa: BLE001 -- whatever it is, deliveries are received, and the next look comes
        _log.error("endpoint.watch_failed", **traced(error))
