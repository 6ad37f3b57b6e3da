"""New endpoints and secrets in a running receiver: what makes it look, what it takes, and what changes nothing."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.config import Config, load
from service.credentials.book import Credentials, EndpointCredentials, SigningSecret
from service.credentials.file import CredentialsFile
from service.errors import ConfigurationError
from service.events import Endpoint, Secret
from service.receiver.reloading import SETTLED_SECONDS, Outcome, Reloading, Trigger
from service.signature import fingerprint
from service.telemetry.metrics import ReceiverMetrics
from tests.support.waiting import eventually

OLD, NEW = Secret("whsec_the_old_one"), Secret("whsec_the_new_one")


class Folder:
    """A configuration file, with a store of secrets beside it."""

    def __init__(self, path: Path) -> None:
        self.file = path / "stripe-ingest.toml"
        self.store = path / "secrets.json"

    async def write(self, *names: str, more: str = "", secret: Secret | None = None) -> None:
        """Endpoints of these names; without a secret of their own, the store has theirs."""
        own = "" if secret is None else f'secrets = ["{secret.value}"]\n'
        tables = "".join(f'[[endpoints]]\nname = "{name}"\nmode = "test"\n{own}' for name in names)
        await self.put(self.file, f'{more}[secrets]\nstore = "{self.store}"\n{tables}')

    async def keep(self, *secrets: Secret, api_key: Secret | None = None) -> None:
        """Keep the shop's secrets in the store, newest first."""
        credentials = Credentials().having("shop", kept(*secrets, api_key=api_key))
        await asyncio.to_thread(CredentialsFile(self.store).write, credentials)

    async def put(self, file: Path, text: str) -> None:
        await asyncio.to_thread(file.write_text, text, encoding="utf-8")

    def load(self) -> Config:
        return load(str(self.file), {})


def kept(*secrets: Secret, api_key: Secret | None = None) -> EndpointCredentials:
    return EndpointCredentials(tuple(SigningSecret(secret, datetime.now(UTC)) for secret in secrets), api_key)


class Running:
    """What is reloaded, what it serves and what it counts."""

    def __init__(self, config: Config, read: Callable[[], Config], **settings: Any) -> None:
        self.served: list[Sequence[Endpoint]] = [config.webhook_endpoints()]
        self.asked = asyncio.Event()
        self.metrics = ReceiverMetrics(CollectorRegistry())
        self.reloading = Reloading(config, read, self.served.append, self.metrics, **settings)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return self.served[-1][0].secrets

    def counted(self, outcome: Outcome) -> float:
        return float(self.metrics.reloads.labels(outcome.value)._value.get())

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reloading.run(self.asked))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()


@pytest.fixture
async def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    await made.write("shop")
    await made.keep(OLD)
    return made


async def running(folder: Folder, read: Callable[[], Config] | None = None, **settings: Any) -> Running:
    config = await asyncio.to_thread(folder.load)
    # A clock at which no file has settled: each is looked at again when it has, which is no test's but one's.
    return Running(config, read or folder.load, **{"watch_seconds": 0.01, "now": lambda: 0.0} | settings)


async def test_new_secrets_of_the_file_are_taken_when_asked(folder: Folder) -> None:
    await folder.write("shop", secret=OLD)
    given = await running(folder)
    await folder.write("shop", "bakery", secret=NEW)

    assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.DONE

    assert [(endpoint.name, endpoint.secrets) for endpoint in given.served[-1]] == [
        ("shop", (NEW,)),
        ("bakery", (NEW,)),
    ]
    assert given.reloading.current().webhook_endpoints() == given.served[-1]
    assert given.counted(Outcome.DONE) == 1


async def test_it_reloads_when_it_is_asked_while_it_runs(folder: Folder) -> None:
    given = await running(folder, watch_seconds=60)
    async with given.watching():
        await folder.keep(NEW, OLD)
        given.asked.set()
        await eventually(lambda: given.secrets == (NEW, OLD), what="the new secret is served")

    assert not given.asked.is_set()


async def test_a_change_of_the_store_is_seen_without_being_asked(folder: Folder) -> None:
    given = await running(folder)
    await given.reloading.reload(Trigger.START)
    async with given.watching():
        for secrets in ((NEW, OLD), (NEW,)):
            await folder.keep(*secrets)
            await eventually(lambda expected=secrets: given.secrets == expected, what="the store's secrets are served")

    assert (given.counted(Outcome.DONE), given.counted(Outcome.UNCHANGED)) == (2, 1)


async def test_a_store_that_begins_to_be_there_is_seen(folder: Folder) -> None:
    await asyncio.to_thread(folder.store.unlink)
    given = await running(folder)
    await given.reloading.reload(Trigger.START)
    assert not given.served[-1][0].secrets
    async with given.watching():
        await folder.keep(NEW)
        await eventually(lambda: given.secrets == (NEW,), what="the first secret is served")


async def test_a_new_path_of_the_store_is_watched_from_then_on(folder: Folder, tmp_path: Path) -> None:
    given = await running(folder)
    await given.reloading.reload(Trigger.START)
    folder.store = tmp_path / "elsewhere.json"
    await folder.write("shop")
    await folder.keep(OLD)
    async with given.watching():
        given.asked.set()
        await eventually(lambda: given.counted(Outcome.DONE) == 1, what="the path is taken")
        await folder.keep(NEW)
        await eventually(lambda: given.secrets == (NEW,), what="the other file's secret is served")


async def test_what_was_written_while_the_process_started_is_taken_at_its_start(folder: Folder) -> None:
    given = await running(folder)
    await folder.keep(NEW)

    assert await given.reloading.reload(Trigger.START) is Outcome.DONE
    assert given.secrets == (NEW,)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("[[endpoints]\n", "is not TOML"),
        ("", "endpoints: at least one is needed"),
        (
            '[[endpoints]]\nname = "shop"\nmode = "test"\nsecrets = ["hush_hush"]\n',
            "a signing secret begins with whsec_",
        ),
        ("[receiver]\nport = 0.5\n", "receiver.port"),
    ],
)
async def test_a_wrong_configuration_changes_nothing_and_is_told_in_a_line(
    folder: Folder, wrong: str, reason: str
) -> None:
    given = await running(folder)
    before = given.reloading.current()
    await folder.put(folder.file, wrong)

    with capture_logs() as lines:
        assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.REFUSED

    (line,) = lines
    assert (line["event"], line["log_level"]) == ("configuration.refused", "error")
    assert reason in line["reason"]
    assert "hush" not in str(lines)
    assert len(given.served) == 1
    assert given.reloading.current() is before
    assert given.counted(Outcome.REFUSED) == 1


async def test_a_wrong_configuration_that_was_asked_for_is_not_tried_again(folder: Folder) -> None:
    given = await running(folder, retry_seconds=0)
    await given.reloading.reload(Trigger.START)
    await folder.put(folder.file, "[")
    async with given.watching():
        given.asked.set()
        await eventually(lambda: given.counted(Outcome.REFUSED) == 1, what="it is refused")
        await folder.write("shop")
        await folder.keep(NEW)  # the next look
        await eventually(lambda: given.secrets == (NEW,), what="the right one is served")

    assert given.counted(Outcome.REFUSED) == 1


async def test_a_change_of_the_store_is_tried_until_it_can_be_taken(folder: Folder) -> None:
    given = await running(folder, retry_seconds=0.01)
    await given.reloading.reload(Trigger.START)
    async with given.watching():
        await folder.put(folder.store, "{")
        await eventually(lambda: given.counted(Outcome.REFUSED) >= 2, what="it is refused, and again")
        assert given.secrets == (OLD,)
        await folder.keep(NEW)
        await eventually(lambda: given.secrets == (NEW,), what="the mended store's secret is served")


async def test_a_store_that_was_seen_half_written_is_taken_as_soon_as_it_is_whole(folder: Folder) -> None:
    given = await running(folder, retry_seconds=3600)
    await given.reloading.reload(Trigger.START)
    async with given.watching():
        await folder.put(folder.store, "{")
        await eventually(lambda: given.counted(Outcome.REFUSED) == 1, what="it is refused")
        await folder.keep(NEW)
        await eventually(lambda: given.secrets == (NEW,), what="the whole one is served")

    assert given.counted(Outcome.REFUSED) == 1


@pytest.mark.parametrize("trigger", Trigger)
async def test_a_store_that_is_gone_takes_no_secret_away(folder: Folder, trigger: Trigger) -> None:
    given = await running(folder)
    await asyncio.to_thread(folder.store.unlink)

    with capture_logs() as lines:
        assert await given.reloading.reload(trigger) is Outcome.REFUSED

    assert given.secrets == (OLD,)
    assert lines[0]["reason"] == (
        f"secrets.store: {folder.store} is not there; without it there would be no signing secret any more of: shop"
    )


async def test_a_store_that_comes_back_while_it_is_read_is_read_again(folder: Folder, tmp_path: Path) -> None:
    away = tmp_path / "away.json"
    times = 0

    def read() -> Config:
        nonlocal times
        times += 1
        if times > 1:
            return folder.load()
        folder.store.rename(away)
        try:
            return folder.load()
        finally:
            away.rename(folder.store)

    given = await running(folder, read)
    await folder.keep(NEW)

    assert await given.reloading.reload(Trigger.STORE) is Outcome.DONE
    assert [served[0].secrets for served in given.served] == [(OLD,), (NEW,)]


async def test_what_is_removed_from_the_store_is_served_no_more(folder: Folder) -> None:
    given = await running(folder)
    await folder.keep()

    assert await given.reloading.reload(Trigger.STORE) is Outcome.DONE
    assert given.secrets == ()


async def test_an_endpoint_may_go_with_its_store(folder: Folder) -> None:
    given = await running(folder)
    await asyncio.to_thread(folder.store.unlink)
    await folder.write("bakery", secret=NEW)

    assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.DONE
    assert given.secrets == (NEW,)


async def test_two_contents_of_one_moment_are_told_apart(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    real, moment = Path.stat, time.time_ns()

    def coarse(self: Path) -> os.stat_result:
        """A file system whose clock ticks seldom, and which gives the same inode again."""
        found = real(self)
        if self != folder.store:
            return found
        times = {"st_mtime_ns": moment, "st_ctime_ns": moment}
        return os.stat_result((*found[:1], 4711, *found[2:10]), times)

    monkeypatch.setattr(Path, "stat", coarse)
    seconds = moment / 1e9
    given = await running(folder, now=lambda: seconds)
    assert await given.reloading.reload(Trigger.START) is Outcome.UNCHANGED
    await folder.keep(NEW)
    seconds += SETTLED_SECONDS + 1
    async with given.watching():
        await eventually(lambda: given.secrets == (NEW,), what="the second content is served")


async def test_a_thread_that_cannot_be_started_ends_neither_the_watch_nor_later_reloads(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    def start(_: threading.Thread) -> None:
        nonlocal refused
        refused += 1
        raise RuntimeError("can't start new thread")

    given = await running(folder, retry_seconds=0.01)
    await given.reloading.reload(Trigger.START)
    async with given.watching():
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", start)
            await eventually(lambda: refused >= 2, what="it has been tried")
            assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.FAILED
        await folder.keep(NEW)
        await eventually(lambda: given.secrets == (NEW,), what="the new secret is served")


async def test_settings_that_need_a_restart_are_named_without_their_values_and_kept(folder: Folder) -> None:
    given = await running(folder)
    more = '[receiver]\nport = 81\n[kafka]\nsecurity = {protocol = "SASL_SSL", username = "u", password = "hush"}\n'
    await folder.write("shop", "bakery", more=more)

    with capture_logs() as lines:
        assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.DONE

    (told,) = [line for line in lines if line["event"] == "configuration.restart_needed"]
    assert told["settings"] == [
        "kafka.security.password", "kafka.security.protocol", "kafka.security.username", "receiver.port"
    ]  # fmt: skip
    assert "hush" not in str(lines)
    current = given.reloading.current()
    assert (current.receiver.port, current.kafka.security.protocol) == (8080, "PLAINTEXT")
    assert [endpoint.name for endpoint in current.endpoints] == ["shop", "bakery"]


async def test_a_change_is_told_by_names_and_fingerprints(folder: Folder) -> None:
    given = await running(folder)
    await folder.write("shop", "bakery")
    await folder.keep(NEW, OLD)

    with capture_logs() as lines:
        await given.reloading.reload(Trigger.STORE)

    (told,) = [line for line in lines if line["event"] == "configuration.reloaded"]
    assert (told["added"], told["changed"], told["removed"]) == (["bakery"], ["shop"], [])
    assert told["secrets"] == {"shop": [fingerprint(NEW), fingerprint(OLD)], "bakery": []}
    assert "whsec_" not in str(lines)


async def test_an_endpoint_without_a_secret_is_warned_of(folder: Folder) -> None:
    given = await running(folder)
    await folder.write("shop", "bakery")

    with capture_logs() as lines:
        await given.reloading.reload(Trigger.SIGNAL)

    warned = [line["endpoint"] for line in lines if line["event"] == "endpoint.without_secret"]
    assert warned == ["bakery"]


async def test_an_api_key_of_the_store_is_taken_for_what_runs_beside(folder: Folder) -> None:
    given = await running(folder)
    await folder.keep(OLD, api_key=Secret("rk_test_1"))

    assert await given.reloading.reload(Trigger.STORE) is Outcome.DONE
    assert given.reloading.current().endpoints[0].api_key == Secret("rk_test_1")


async def test_what_nobody_foresaw_changes_nothing(folder: Folder) -> None:
    def read() -> Config:
        raise MemoryError("whsec_in_a_message")

    given = await running(folder, read)
    with capture_logs() as lines:
        assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.FAILED

    assert [line["event"] for line in lines] == ["configuration.failed"]
    assert "whsec_" not in str(lines)
    assert len(given.served) == 1


async def test_a_disk_that_hangs_holds_nothing_up_and_is_asked_once_at_a_time(folder: Folder) -> None:
    reading, go_on = threading.Semaphore(0), threading.Event()

    def read() -> Config:
        reading.release()
        go_on.wait(30)
        return folder.load()

    given = await running(folder, read, read_seconds_max=0.05)
    await folder.keep(NEW)
    try:
        assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.FAILED
        assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.FAILED
        assert given.secrets == (OLD,)
    finally:
        go_on.set()
    assert reading.acquire(blocking=False)
    assert not reading.acquire(blocking=False)

    async def reloaded() -> bool:
        return await given.reloading.reload(Trigger.SIGNAL) is Outcome.DONE

    await eventually(reloaded, what="the disk that answers again is read")
    assert given.secrets == (NEW,)


async def test_what_a_disk_says_too_late_is_told_to_nobody(folder: Folder) -> None:
    go_on, told = threading.Event(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def read() -> Config:
        go_on.wait(30)
        raise MemoryError("whsec_in_a_message")

    given = await running(folder, read, read_seconds_max=0.05)
    assert await given.reloading.reload(Trigger.SIGNAL) is Outcome.FAILED
    go_on.set()

    late = given.reloading._apart._running
    assert late is not None
    await eventually(late.done, what="the disk has answered")
    del late
    given.reloading._apart._running = None
    gc.collect()
    assert told == []


async def test_it_can_be_ended_while_a_disk_hangs(folder: Folder) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def read() -> Config:
        reading.set()
        go_on.wait(30)
        raise ConfigurationError("too late")

    given = await running(folder, read)
    try:
        async with asyncio.timeout(5), given.watching():
            given.asked.set()
            await eventually(reading.is_set, what="the configuration is being read")
    finally:
        go_on.set()
