"""A running receiver takes new endpoints and secrets: on SIGHUP, and when the file of the secret store changes.

Endpoints are replaced, and with them where their secrets are kept; every other setting is of the process's start. A
configuration that is wrong changes nothing.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import structlog

from service.config import Config, EndpointConfig
from service.errors import ConfigurationError
from service.events import Endpoint
from service.signature import fingerprint
from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.traces import traced

WATCH_SECONDS: Final = 1.0
"""Between two looks at the secret store's file."""

READ_SECONDS_MAX: Final = 10.0
"""How long reading the configuration may take: a disk may hang."""

RETRY_SECONDS: Final = 30.0
"""After a change of the secret store that could not be taken, until it is tried again where it has not changed since;
also, after a look at it that failed, until the next."""

SETTLED_SECONDS: Final = 2.0
"""As seldom as any file system's clock ticks. Two contents may have the times of one tick: what a file looks like in
its first seconds is no proof that it was read whole."""

RELOADED: Final = ("endpoints", "secrets")
"""The sections that are taken; `secrets` says where the endpoints' own are."""

T = TypeVar("T")

Load: TypeAlias = Callable[[], Config]
"""Reads the configuration anew. Raises `ConfigurationError`; may block."""

Serve: TypeAlias = Callable[[Sequence[Endpoint]], None]
"""Replaces the endpoints that are served, all at once."""

_log: Final = structlog.get_logger("service.configuration")


class Trigger(StrEnum):
    """Why the configuration is read again."""

    START = "start"
    SIGNAL = "signal"
    STORE = "store"


class Outcome(StrEnum):
    """What came of it; the metric's label."""

    DONE = "done"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """The configuration is wrong."""
    FAILED = "failed"
    """It could not be read in time, or in a way nobody foresaw."""


_State: TypeAlias = tuple[int, ...] | None
"""What a file looks like; None where it is not there, or cannot be looked at."""

_Look: TypeAlias = tuple[str, _State, bool] | None
"""The store's path, what its file looked like, and whether for long enough; None where no store is configured."""


class Reloading:
    """Keeps one receiver's configuration. `config` is what it was started with, and served already."""

    def __init__(
        self,
        config: Config,
        load: Load,
        serve: Serve,
        metrics: ReceiverMetrics,
        *,
        watch_seconds: float = WATCH_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        read_seconds_max: float = READ_SECONDS_MAX,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._load = load
        self._serve = serve
        self._reloads = metrics.reloads
        self._watch_seconds = watch_seconds
        self._retry_seconds = retry_seconds
        self._apart = _Apart(read_seconds_max)
        self._now = now
        self._seen: _Look = ("", None, False)
        """What the store looked like before it was last read with success."""
        self._tried: _Look = self._seen
        """The same, with or without success."""
        self._retry_at = float("-inf")
        self._look_at = float("-inf")
        for outcome in Outcome:
            self._reloads.labels(outcome.value)

    def current(self) -> Config:
        """The configuration that holds now."""
        return self._config

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever `asked` is set or the store's file has changed, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._watch_seconds):
                    await asked.wait()
            if asked.is_set():
                asked.clear()
                await self.reload(Trigger.SIGNAL)
            elif await self._store_has_changed():
                await self.reload(Trigger.STORE)

    async def reload(self, trigger: Trigger) -> Outcome:
        """Read the configuration and take its endpoints. Raises nothing: what is wrong is logged and counted."""
        outcome = await self._reload(trigger)
        self._reloads.labels(outcome.value).inc()
        if outcome in {Outcome.DONE, Outcome.UNCHANGED}:
            self._retry_at = float("-inf")
        else:
            self._retry_at = time.monotonic() + self._retry_seconds
        return outcome

    async def _reload(self, trigger: Trigger) -> Outcome:
        try:
            look = self._tried = await self._look()  # first: what changes while it is read is seen at the next look
            loaded = await self._apart.run(self._read)
            endpoints = loaded.webhook_endpoints()
        except ConfigurationError as wrong:
            _log.error("configuration.refused", trigger=trigger.value, reason=str(wrong), kept="the old one")
            return Outcome.REFUSED
        except TimeoutError:
            reason = "it cannot be read in time"
            _log.error("configuration.failed", trigger=trigger.value, reason=reason, kept="the old one")
            return Outcome.FAILED
        except Exception as unforeseen:  # noqa: BLE001 -- deliveries go on as before, whatever it is
            _log.error("configuration.failed", trigger=trigger.value, kept="the old one", **traced(unforeseen))
            return Outcome.FAILED
        self._seen = look
        return self._take(trigger, loaded, endpoints)

    def _take(self, trigger: Trigger, loaded: Config, endpoints: Sequence[Endpoint]) -> Outcome:
        before = self._config
        if ignored := sorted(_differing(before, loaded)):
            _log.warning("configuration.restart_needed", trigger=trigger.value, settings=ignored)
        taken = msgspec.structs.replace(before, **{section: getattr(loaded, section) for section in RELOADED})
        if taken == before:
            if trigger is Trigger.SIGNAL:  # whoever sent it is owed an answer
                _log.info("configuration.unchanged", trigger=trigger.value)
            return Outcome.UNCHANGED
        self._serve(endpoints)
        self._config = taken
        _log.info("configuration.reloaded", trigger=trigger.value, **_told(before.endpoints, taken.endpoints))
        warn_of_missing_secrets(endpoints)
        return Outcome.DONE

    def _read(self) -> Config:
        """The configuration of now. Raises `ConfigurationError`, also where secrets would go with a file that is gone.

        To be without a store is how a process begins, before there is any secret. Under one that serves, it was moved,
        or its disk is not mounted: no reason to refuse deliveries. `secrets remove` leaves a file.
        """
        loaded = self._load()
        had = {endpoint.name for endpoint in self._config.endpoints if endpoint.secrets}
        bare = [endpoint.name for endpoint in loaded.endpoints if not endpoint.secrets and endpoint.name in had]
        store = loaded.secrets.store
        if not bare or store is None:
            return loaded
        if _state(Path(store)) is None:
            raise ConfigurationError(
                f"secrets.store: {store} is not there; without it there would be no signing secret any more of: "
                + ", ".join(bare)
            )
        return self._load()  # it may have come only now: by hand one file is moved away, then another into its place

    async def _store_has_changed(self) -> bool:
        if time.monotonic() < self._look_at:
            return False
        try:
            look = await self._look()
        except TimeoutError:
            _log.warning("configuration.unwatched", reason="the disk of secrets.store does not answer")
        except Exception as unforeseen:  # noqa: BLE001 -- whatever it is, it has to be looked at again
            _log.error("configuration.unwatched", **traced(unforeseen))
        else:
            return look != self._seen and (look != self._tried or time.monotonic() >= self._retry_at)
        self._look_at = time.monotonic() + self._retry_seconds
        return False

    async def _look(self) -> _Look:
        store = self._config.secrets.store
        if store is None:
            return None
        state = await self._apart.run(lambda: _state(Path(store)))
        return store, state, state is None or self._now() - state[-1] / 1e9 > SETTLED_SECONDS


def warn_of_missing_secrets(endpoints: Iterable[Endpoint]) -> None:
    """Say which endpoints refuse every delivery, since there is no secret to verify one with."""
    for endpoint in endpoints:
        if not endpoint.secrets:
            _log.warning(
                "endpoint.without_secret",
                endpoint=endpoint.name,
                detail="every delivery is refused until secrets.store has one: `endpoints apply` puts it there",
            )


@dataclass(slots=True)
class _Apart:
    """Runs what may block in a thread that neither the event loop nor the end of the process waits for."""

    seconds_max: float
    _running: "asyncio.Future[Any] | None" = None

    async def run(self, function: Callable[[], T]) -> T:
        """Its result. Raises `TimeoutError` where it takes too long, or where an earlier one still does."""
        if self._running is not None and not self._running.done():
            raise TimeoutError  # one thread may hang, not one more at each look
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        # An error that comes too late is nobody's: asyncio would log it, with whatever it quotes.
        result.add_done_callback(lambda done: done.cancelled() or done.exception())

        def tell(how: Callable[[Any], None], what: object) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(lambda: None if result.done() else how(what))

        def work() -> None:
            try:
                done = function()
            except Exception as error:  # noqa: BLE001 -- it is raised where the result is awaited
                tell(result.set_exception, error)
            else:
                tell(result.set_result, done)

        threading.Thread(target=work, name="configuration", daemon=True).start()
        self._running = result  # now that there is a thread that will end it
        async with asyncio.timeout(self.seconds_max):
            return await asyncio.shield(result)


def _state(path: Path) -> _State:
    """What tells one content of a file from another, at its end when it was last changed in any way."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _differing(before: msgspec.Struct, after: msgspec.Struct, within: str = "") -> Iterator[str]:
    """The names of the settings that are not taken and have changed; never their values."""
    for name in before.__struct_fields__:
        was, is_now = getattr(before, name), getattr(after, name)
        if was == is_now or (not within and name in RELOADED):
            continue
        if isinstance(was, msgspec.Struct) and isinstance(is_now, msgspec.Struct):
            yield from _differing(was, is_now, f"{within}{name}.")
        else:
            yield f"{within}{name}"


def _told(before: Sequence[EndpointConfig], after: Sequence[EndpointConfig]) -> Mapping[str, object]:
    """What a log line says of a change: endpoints by name, secrets by fingerprint."""
    were = {endpoint.name: endpoint for endpoint in before}
    are = {endpoint.name: endpoint for endpoint in after}
    changed = [name for name, endpoint in are.items() if were.get(name) != endpoint]
    return {
        "added": [name for name in changed if name not in were],
        "changed": [name for name in changed if name in were],
        "removed": [name for name in were if name not in are],
        "secrets": {name: [fingerprint(secret) for secret in are[name].secrets] for name in changed},
    }
