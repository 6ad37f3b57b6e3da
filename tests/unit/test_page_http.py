"""The page's HTTP side: input in its bounds, answers in JSON, and nothing of what nobody foresaw."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.adapters.memory_kafka import MemoryKafka, MemoryRecordLog
from service.admin import CONNECTIONS_MAX, Part, build_admin, serve_admin
from service.clock import SystemClock
from service.errors import BrokerUnavailable, StoreUnavailable
from service.events import Arrival, ConsumedRecord, Partition, Record, Secret
from service.page.access import SECURITY_HEADERS, Access
from service.page.consumers import CACHED_SECONDS, OVERDUE_SECONDS, PARKED_HOURS, Consumers
from service.page.files import StaticFile, read_files
from service.page.http import DATA_AT_ONCE_MAX, Page, add_page
from service.page.live import Live
from service.page.parked import SCANNED_RECORDS_MAX, Parking, ParkingPlace
from service.page.sessions import PEER_ATTEMPTS, Sessions, Throttle
from service.ports import EventEffect, FoundObject, LedgerLine, LoggedArrival, NamedRow, RecordLog, StoredOffset
from service.projections.model import ObjectKey
from service.recovery.redrive import Outcome, Parked, Redriven, Step, quarantined
from service.telemetry.metrics import PageMetrics
from tests.support.page import TOKEN, Browser, browsing
from tests.support.waiting import eventually, free_port

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
QUARANTINE = "stripe.quarantine"
LOWERED = {name.lower(): value for name, value in SECURITY_HEADERS.items()}


def arrival(number: int, outcome: str = "accepted", *, topic: str | None = "stripe.payments") -> LoggedArrival:
    return LoggedArrival(
        number,
        Arrival(
            received_at=NOON, ingest_source="webhook", endpoint="shop", outcome=outcome, event_id="evt_1",
            event_type=None, account=None, livemode=None, object_type=None, object_id=None, customer_id=None,
            created_at=None, api_version=None, signed_at=None, secret=None, topic=topic,
            partition=0 if topic else None, record_offset=number if topic else None, dedupe=None, reason=None,
            trace_id="t",
        ),
    )  # fmt: skip


LINE = LedgerLine(
    "acct_1", True, "charge", "ch_1", "evt_1", "charge.succeeded", NOON, NOON, False,
    {"charge_id": "ch_1", "status": "succeeded", "metadata": {}}, None,
)  # fmt: skip


@dataclass
class Reader:
    """`OperatorReader` with answers that a test writes."""

    logged: list[LoggedArrival] = field(default_factory=list)
    accounts: list[tuple[str, bool]] = field(default_factory=list)
    objects: dict[ObjectKey, FoundObject] = field(default_factory=dict)
    done: list[EventEffect] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    failure: Exception | None = None
    stored: dict[tuple[str, Partition], StoredOffset] = field(default_factory=dict)

    async def arrivals(
        self, *, of: str | None = None, before: int | None = None, limit: int
    ) -> Sequence[LoggedArrival]:
        self.asked.append((of, before, limit))
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.logged[:limit]

    async def arrivals_of_event(self, event_id: str, *, limit: int) -> Sequence[LoggedArrival]:
        return [each for each in self.logged if each.arrival.event_id == event_id][:limit]

    async def effects(self, event_id: str, *, limit: int) -> Sequence[EventEffect]:
        return [each for each in self.done if each.line.event_id == event_id][:limit]

    async def whose(self, object_id: str, *, limit: int) -> Sequence[tuple[str, bool]]:
        self.asked.append((object_id,))
        return self.accounts[:limit]

    async def found(self, key: ObjectKey, *, limit: int) -> FoundObject | None:  # noqa: ARG002 -- the port's
        return self.objects.get(key)

    async def offsets(self, groups: Collection[str]) -> Mapping[tuple[str, Partition], StoredOffset]:
        self.asked.append(tuple(groups))
        if self.failure is not None:
            raise self.failure
        return self.stored

    async def close(self) -> None:
        pass


@dataclass
class World:
    """A page, and all that stands behind it."""

    browser: Browser
    reader: Reader
    kafka: MemoryKafka
    ticks: list[float]
    replayed: list[str]
    opened: list[int]


class Ticking:
    """The system's clock, ahead by what a test says."""

    def __init__(self, ticks: list[float]) -> None:
        self._ticks = ticks

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ticks[0])

    def monotonic(self) -> float:
        return self._ticks[0]


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def served(*, token: str | None = TOKEN, database: bool = True) -> AsyncIterator[World]:
        reader, kafka = Reader(), MemoryKafka(SystemClock())
        kafka.create_topic(QUARANTINE, partitions=2)
        kafka.create_topic("stripe.payments", partitions=2)
        ticks, replayed, opened = [0.0], [], []
        its = CollectorRegistry()

        @asynccontextmanager
        async def open_log() -> AsyncIterator[RecordLog]:
            if not kafka.available:
                raise BrokerUnavailable("kafka is away")
            opened.append(1)
            try:
                yield MemoryRecordLog(kafka)
            finally:
                opened.append(-1)

        @asynccontextmanager
        async def step(dry_run: bool) -> AsyncIterator[Step]:
            async def done(parked: Parked) -> Redriven:
                replayed.append(parked.place)
                return Redriven(parked, Outcome.WOULD_REPLAY if dry_run else Outcome.REPLAYED, "to somewhere")

            yield done

        consumers = Consumers(
            {"payments": ("group", ["stripe.payments"])},
            open_log,
            reader if database else None,
            Ticking(ticks),
            {"quarantine": QUARANTINE, "dead-letter": "stripe.not-made-yet"},
        )
        parking = Parking(PageMetrics(its))
        page = Page(
            version="1.2.3",
            access=Access(token=Secret(token) if token else None, admin_host="127.0.0.1"),
            sessions=Sessions(lambda: ticks[0]),
            throttle=Throttle(lambda: ticks[0]),
            live=Live(its, SystemClock(), endpoints=tuple, problems=tuple),
            consumers=consumers,
            reader=reader if database else None,
            parking=parking,
            places={"quarantine": ParkingPlace("quarantine", QUARANTINE, quarantined, open_log, step)},
            files={"index.html": StaticFile(b"<!doctype html>", "text/html", '"1"'),
                   "page.js": StaticFile(b"1", "text/javascript", '"2"')},
            metrics=parking._metrics,
        )  # fmt: skip
        async with admin(lambda app: add_page(app, page)) as url, browsing(url) as browser:
            yield World(browser, reader, kafka, ticks, replayed, opened)
        await parking.close()
        await consumers.close()

    return served


@asynccontextmanager
async def admin(part: Part | None) -> AsyncIterator[str]:
    runner = web.AppRunner(build_admin(CollectorRegistry(), lambda: (), part), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_files_are_served_with_their_headers_and_asked_for_again(serve: Serve) -> None:
    async with serve() as world:
        index = await world.browser.ask("GET", "/")
        assert (index.status, index.body) == (200, b"<!doctype html>")
        assert LOWERED.items() <= index.headers.items()
        assert index.headers["cache-control"] == "no-cache"
        again = await world.browser.ask("GET", "/static/page.js", headers={"If-None-Match": '"1", "2"'})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", '"2"')
        assert (await world.browser.ask("HEAD", "/static/page.js")).headers["content-length"] == "1"
        for path in ("/static/other.js", "/static/..%2fhttp.py", "/static/", "/nowhere", "/api/nowhere"):
            missing = await world.browser.ask("GET", path)
            assert (missing.status, missing.error) == (404, "not_found"), path
            assert LOWERED.items() <= missing.headers.items()
        data = await world.browser.ask("GET", "/api/session")
        assert data.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("PUT", "/api/session"),
        ("POST", "/api/live"),
        ("DELETE", "/api/events"),
        ("GET", "/api/parked/quarantine/replay"),
    ],
)
async def test_other_methods_are_refused(serve: Serve, method: str, path: str) -> None:
    async with serve() as world:
        refused = await world.browser.ask(method, path)
        assert (refused.status, refused.error) == (405, "method_not_allowed")
        assert refused.headers["allow"]


async def test_what_was_on_the_port_before_is_as_it_was(serve: Serve) -> None:
    async with serve() as world:
        for path in ("/livez", "/readyz", "/metrics"):
            with_page = await world.browser.ask("GET", path, headers={"Host": "anybody"})
            assert with_page.status == 200
            assert not LOWERED.keys() & with_page.headers.keys()
            assert (await world.browser.ask("HEAD", path)).status == 200
    async with admin(None) as url, browsing(url) as browser:
        assert await browser.get("/") == {"paths": ["/livez", "/readyz", "/metrics"]}


async def test_a_session_is_begun_told_and_ended(serve: Serve) -> None:
    async with serve() as world:
        nobody = {
            "version": "1.2.3",
            "signed_in": False,
            "token_configured": True,
            "data": True,
            "replay": False,
            "csrf": None,
        }
        assert await world.browser.get("/api/session") == nobody
        begun = await world.browser.ask("POST", "/api/session", json={"token": TOKEN})
        cookie = begun.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        somebody = await world.browser.get("/api/session")
        assert (somebody["signed_in"], somebody["replay"]) == (True, True)
        assert (await world.browser.ask("DELETE", "/api/session")).error == "csrf_wrong"
        ended = await world.browser.ask("DELETE", "/api/session", headers={"X-CSRF-Token": somebody["csrf"]})
        assert (ended.status, (await world.browser.get("/api/session"))["signed_in"]) == (204, False)
        by_tls = {"Origin": world.browser.url.replace("http:", "https:")}
        begun = await world.browser.ask("POST", "/api/session", json={"token": TOKEN}, headers=by_tls)
        assert "Secure" in begun.headers["set-cookie"].split("; ")


async def test_attempts_to_sign_in_are_bounded_and_counted(serve: Serve) -> None:
    async with serve() as world:
        with capture_logs() as lines:
            answers = [
                await world.browser.ask("POST", "/api/session", json={"token": "planted"})
                for _ in range(PEER_ATTEMPTS + 2)
            ]
        assert [each.error for each in answers] == ["token_wrong"] * PEER_ATTEMPTS + ["throttled"] * 2
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert "planted" not in str(lines)
        assert len([line for line in lines if line["event"] == "page.sign_in_refused"]) == 1
        assert (await world.browser.ask("POST", "/api/session", json={"token": TOKEN})).error == "throttled"
    async with serve(token=None) as world:
        refused = await world.browser.ask("POST", "/api/session", json={"token": ""})
        assert (refused.status, refused.error) == (403, "no_token")
        assert (await world.browser.ask("POST", "/api/parked/quarantine/replay", json={})).error == "no_token"


@pytest.mark.parametrize(
    ("headers", "body", "error"),
    [
        ({"Content-Type": "text/plain"}, b'{"token": "x"}', "json_needed"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"token=x", "json_needed"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"{}", "json_needed"),
        ({"Content-Type": "application/json"}, b"{", "bad_request"),
        ({"Content-Type": "application/json"}, b'{"token": 1}', "bad_request"),
        ({"Content-Type": "application/json"}, b'"\xff"', "bad_request"),
        ({"Content-Type": "application/json"}, b" " * 200_000, "body_too_large"),
        ({"Content-Type": "application/json", "Origin": "https://evil.test"}, b'{"token": "x"}', "origin_not_allowed"),
    ],
)
async def test_only_our_own_page_can_post(serve: Serve, headers: Mapping[str, str], body: bytes, error: str) -> None:
    async with serve() as world:
        url = f"{world.browser.url}/api/session"
        async with world.browser.session.post(url, data=body, headers=headers) as response:
            assert (await response.json())["error"] == error


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0}, {"limit": 201}, {"limit": "x"}, {"limit": -1}, {"limit": "1e3"}, {"before": 0}, {"before": 10**18},
        {"before": "٣"}, {"q": "a" * 501}, {"q": "pi\x00"}, {"q": "a\nb"}, {"q": "a\u202eb"},
    ],
)  # fmt: skip
async def test_what_is_out_of_bounds_is_refused(serve: Serve, query: Mapping[str, object]) -> None:
    async with serve() as world:
        refused = await world.browser.ask("GET", "/api/events", **query)
        assert (refused.status, refused.error) == (400, "bad_request")
        assert world.reader.asked == []


async def test_arrivals_come_in_pages(serve: Serve) -> None:
    async with serve() as world:
        world.reader.logged = [arrival(n) for n in (9, 7, 5)]
        first = await world.browser.get("/api/events", limit=2, q=" gold plan (monthly) ", before=12)
        assert world.reader.asked == [("gold plan (monthly)", 12, 3)]
        assert ([each["arrival_id"] for each in first["arrivals"]], first["next"]) == ([9, 7], 7)
        assert first["arrivals"][0].keys() == {"arrival_id", *Arrival._fields}
        assert first["arrivals"][0]["received_at"] == "2026-11-20T12:00:00Z"
        assert (await world.browser.get("/api/events"))["next"] is None
        # Ids that people choose: what is taken in can be looked for.
        for chosen in ('gold "plan"', "größe <b>", "a%2Fb", "x" * 500):
            await world.browser.get("/api/events", q=chosen)
            assert world.reader.asked[-1][0] == chosen
            way = await world.browser.ask("GET", f"/api/objects/{quote(chosen, safe='')}")
            assert (way.error, world.reader.asked[-1]) == ("not_found", (chosen,))


async def test_an_events_way_says_what_each_repetition_repeats(serve: Serve) -> None:
    async with serve() as world:
        world.reader.logged = [
            arrival(1, "broker_unavailable", topic=None), arrival(2), arrival(3, "duplicate", topic=None),
        ]  # fmt: skip
        world.reader.done = [EventEffect("payments", LINE, [NamedRow("payments", "pi_1", "succeeded")])]
        way = await world.browser.get("/api/events/evt_1")
        first = {"arrival_id": 2, "topic": "stripe.payments", "partition": 0, "record_offset": 2}
        assert [each["duplicate_of"] for each in way["arrivals"]] == [None, None, first]
        assert way["effects"][0]["rows"] == [{"table": "payments", "id": "pi_1", "status": "succeeded"}]
        assert (await world.browser.ask("GET", "/api/events/evt_2")).error == "not_found"


async def test_an_id_of_several_accounts_is_to_be_chosen(serve: Serve) -> None:
    found = FoundObject("payment", {"payment_id": "pi_1"}, [], [LINE], [], cut=False)
    async with serve() as world:
        world.reader.accounts = [("acct_1", True), ("acct_2", True)]
        world.reader.objects = {ObjectKey("acct_2", True, "plan/one two"): found}
        path = "/api/objects/plan%2Fone%20two"
        choices = [{"account": "acct_1", "livemode": True}, {"account": "acct_2", "livemode": True}]
        assert await world.browser.get(path) == {"choices": choices}
        assert (await world.browser.ask("GET", path, account="acct_1")).error == "not_found"
        told = await world.browser.get(path, account="acct_2", livemode="true")
        assert (told["kind"], told["account"], told["row"]) == ("payment", "acct_2", {"payment_id": "pi_1"})
        assert told["entries"][0]["changes"] == [
            {"field": "charge_id", "from": None, "to": "ch_1"}, {"field": "status", "from": None, "to": "succeeded"},
        ]  # fmt: skip
        for query in ({"account": "a-b"}, {"livemode": "yes"}):
            assert (await world.browser.ask("GET", path, **query)).error == "bad_request"
        world.reader.accounts = []
        assert (await world.browser.ask("GET", path)).error == "not_found"


async def test_only_a_few_read_at_once(serve: Serve) -> None:
    async with serve() as world:
        world.reader.gate = asyncio.Event()
        reading = [asyncio.create_task(world.browser.get("/api/events")) for _ in range(DATA_AT_ONCE_MAX)]
        await eventually(lambda: len(world.reader.asked) == DATA_AT_ONCE_MAX, what="all of them read")
        busy = await world.browser.ask("GET", "/api/events")
        assert (busy.status, busy.error, busy.headers["retry-after"]) == (503, "busy", "1")
        assert (await world.browser.ask("GET", "/api/live")).status == 200
        world.reader.gate.set()
        await asyncio.gather(*reading)
        assert (await world.browser.ask("GET", "/api/events")).status == 200


async def test_what_takes_too_long_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.page.http.ANSWER_SECONDS_MAX", 0.05)
    async with serve() as world:
        world.reader.gate = asyncio.Event()
        late = await world.browser.ask("GET", "/api/events")
        assert (late.status, late.error) == (503, "timed_out")


async def test_nothing_is_told_of_what_nobody_foresaw(serve: Serve) -> None:
    async with serve() as world:
        world.reader.failure = KeyError("planted")
        with capture_logs() as lines:
            failed = await world.browser.ask("GET", "/api/events", q="pi_planted")
        assert (failed.status, failed.error) == (500, "internal_error")
        (line,) = lines
        assert (line["event"], line["error"], line["path"]) == ("page.unforeseen", "KeyError", "/api/events")
        assert "planted" not in str(lines)
        assert b"planted" not in failed.body
        world.reader.failure = StoreUnavailable("Postgres is away")
        away = await world.browser.ask("GET", "/api/events")
        assert (away.status, away.error) == (503, "store_unavailable")


async def test_consumers_are_asked_for_once_in_two_seconds(serve: Serve) -> None:
    async with serve() as world:
        payments = Partition("stripe.payments", 0)
        for _ in range(5):
            world.kafka.append_to(payments, Record(payments.topic, b"", b"{}", ()))
        world.reader.stored = {("group", payments): StoredOffset(3, NOON)}
        told, same = await asyncio.gather(*(world.browser.get("/api/consumers") for _ in range(2)))
        assert told == same == {
            "problem": None,
            "groups": [{
                "projection": "payments", "group": "group", "lag": 2, "overdue": 0, "updated_at": NOON.timestamp(),
                "partitions": [
                    {"topic": "stripe.payments", "partition": 0, "next_offset": 3, "end_offset": 5, "lag": 2,
                     "overdue": 0, "updated_at": NOON.timestamp(), "problem": None},
                    {"topic": "stripe.payments", "partition": 1, "next_offset": None, "end_offset": 0, "lag": 0,
                     "overdue": 0, "updated_at": None, "problem": None},
                ],
            }],
            "parked": {"quarantine": 0, "dead-letter": 0},
        }  # fmt: skip
        assert world.reader.asked == [("group",)]
        world.ticks[0] += CACHED_SECONDS
        await world.browser.get("/api/consumers")
        assert (len(world.reader.asked), world.opened) == (2, [1])
        for failure, problem in (
            (StoreUnavailable("away"), "store_unavailable"),
            (KeyError("planted"), "internal_error"),
        ):
            world.reader.failure = failure
            world.ticks[0] += CACHED_SECONDS
            assert await world.browser.get("/api/consumers") == {"groups": [], "problem": problem}
        assert world.opened == [1, -1]
        world.reader.failure, world.kafka.available = None, False
        world.ticks[0] += CACHED_SECONDS
        assert (await world.browser.get("/api/consumers"))["problem"] == "broker_unavailable"


async def test_each_partition_tells_what_has_waited_too_long_and_what_it_cannot_read(serve: Serve) -> None:
    async with serve() as world:
        moving, still = Partition("stripe.payments", 0), Partition("stripe.payments", 1)
        for partition in (moving, still):
            for _ in range(4):
                world.kafka.append_to(partition, Record(partition.topic, b"", b"{}", ()))
        park(world.kafka, 3)
        later = NOON + timedelta(hours=1)
        world.reader.stored = {("group", moving): StoredOffset(4, later), ("group", still): StoredOffset(1, NOON)}

        async def told() -> tuple[Any, list[tuple[Any, ...]]]:
            world.ticks[0] += OVERDUE_SECONDS + 1
            answer = await world.browser.get("/api/consumers")
            (group,) = answer["groups"]
            names = ("lag", "overdue", "updated_at", "problem")
            return answer, [tuple(each.get(name) for name in names) for each in (group, *group["partitions"])]

        answer, rows = await told()
        assert rows == [
            (3, 3, later.timestamp(), None),
            (0, 0, later.timestamp(), None),
            (3, 3, NOON.timestamp(), None),
        ]
        assert answer["parked"] == {"quarantine": 3, "dead-letter": 0}

        # What was deleted before it was read, or was never there, is not caught up.
        world.kafka.delete_records(still, before=2)
        world.reader.stored[("group", moving)] = StoredOffset(9, later)
        _, rows = await told()
        assert [row[3] for row in rows] == [None, "offset_out_of_range", "offset_out_of_range"]
        world.ticks[0] += PARKED_HOURS * 3600
        answer, _ = await told()
        assert answer["parked"]["quarantine"] == 0


async def test_a_failure_is_not_asked_for_again_by_each_who_waited_for_it(serve: Serve) -> None:
    async with serve() as world:
        asked = world.reader.offsets

        async def slow(groups: Collection[str]) -> Mapping[tuple[str, Partition], StoredOffset]:
            world.ticks[0] += 5
            found: Mapping[tuple[str, Partition], StoredOffset] = await asked(groups)
            return found

        world.reader.failure = StoreUnavailable("away")
        world.reader.offsets = slow
        await asyncio.gather(*(world.browser.get("/api/consumers") for _ in range(5)))
        assert len(world.reader.asked) == 1


def park(kafka: MemoryKafka, count: int, *, partition: int = 0, size: int = 10) -> None:
    at = Partition(QUARANTINE, partition)
    for n in range(count):
        headers = (("reason", b"malformed_json"), ("endpoint", b"shop"), ("event_id", f"evt_{n}".encode()))
        kafka.append_to(at, Record(QUARANTINE, f"evt_{n}".encode(), b"x" * size, headers))


async def test_what_is_parked_is_listed_newest_first_and_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as world:
        park(world.kafka, 5)
        park(world.kafka, 3, partition=1)
        listed = await world.browser.get("/api/parked/quarantine")
        assert (len(listed["records"]), listed["truncated"]) == (8, False)
        assert [each["parked_at"] for each in listed["records"]] == sorted(
            (each["parked_at"] for each in listed["records"]), reverse=True
        )
        assert listed["records"][0].keys() == {
            "place", "id", "event_type", "endpoint", "reason", "detail", "consumer_group", "parked_at",
        }  # fmt: skip
        assert "xxx" not in str(listed)
        short = await world.browser.get("/api/parked/quarantine", limit=2)
        assert (len(short["records"]), short["truncated"]) == (2, True)
        one = await world.browser.get("/api/parked/quarantine", id=f"{QUARANTINE}/0/3")
        assert [each["id"] for each in one["records"]] == ["evt_3"]
        monkeypatch.setattr("service.page.parked.SCANNED_RECORDS_MAX", 4)
        newest = await world.browser.get("/api/parked/quarantine")
        assert ({each["place"] for each in newest["records"]}, newest["truncated"]) == (
            {f"{QUARANTINE}/0/3", f"{QUARANTINE}/0/4", f"{QUARANTINE}/1/1", f"{QUARANTINE}/1/2"}, True,
        )  # fmt: skip
        monkeypatch.setattr("service.page.parked.SCANNED_RECORDS_MAX", SCANNED_RECORDS_MAX)
        monkeypatch.setattr("service.page.parked.SCANNED_BYTES_MAX", 35)
        assert (await world.browser.get("/api/parked/quarantine"))["truncated"] is True
        for path, query in (("/api/parked/other", {}), ("/api/parked/quarantine", {"since_hours": 0})):
            assert (await world.browser.ask("GET", path, **query)).error in {"not_found", "bad_request"}


async def test_what_is_parked_is_replayed_by_its_places(serve: Serve) -> None:
    path = "/api/parked/quarantine/replay"
    async with serve() as world:
        park(world.kafka, 5)
        headers = await world.browser.sign_in()
        places = [f"{QUARANTINE}/0/{n}" for n in (3, 1, 77)]
        planned = await world.browser.ask("POST", path, json={"places": places, "dry_run": True}, headers=headers)
        assert planned.document == {
            "results": [
                {"place": places[0], "id": "evt_3", "outcome": "would_replay", "detail": "to somewhere"},
                {"place": places[1], "id": "evt_1", "outcome": "would_replay", "detail": "to somewhere"},
                {"place": places[2], "id": None, "outcome": "not_found", "detail": ""},
            ]
        }
        # An event's id is a name of the record, too, and no place.
        by_name = await world.browser.ask("POST", path, json={"places": ["evt_2"]}, headers=headers)
        assert by_name.document["results"][0]["outcome"] == "not_found"
        assert world.replayed == [places[1], places[0]]
        for wanted in ([], ["x"] * 101, ["a b"], [""]):
            refused = await world.browser.ask("POST", path, json={"places": wanted}, headers=headers)
            assert (refused.status, refused.error) == (400, "bad_request")
        world.kafka.available = False
        with capture_logs() as lines:
            away = await world.browser.ask("POST", path, json={"places": places}, headers=headers)
        assert (away.status, away.error) == (503, "broker_unavailable")
        assert [(line["event"], line["reason"], line["outcomes"]) for line in lines] == [
            ("page.replayed", "broker_unavailable", {})
        ]


def test_the_pages_files_are_in_the_package() -> None:
    files = read_files()

    assert "index.html" in files
    assert len({file.etag for file in files.values()}) == len(files)
    assert {file.content_type.partition(";")[0] for name, file in files.items() if name.endswith(".js")} <= {
        "text/javascript"
    }


def test_a_record_without_headers_can_be_told() -> None:
    record = ConsumedRecord(Partition(QUARANTINE, 0), 0, None, None, (), 0)

    assert quarantined(record).place == f"{QUARANTINE}/0/0"


async def test_who_opens_connections_without_end_displaces_only_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    runner = await serve_admin(build_admin(CollectorRegistry(), lambda: ()), "127.0.0.1", port)
    writers: list[asyncio.StreamWriter] = []
    try:
        readers: list[asyncio.StreamReader] = []
        for _ in range(2 * CONNECTIONS_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /livez HT")
            readers.append(reader)
            writers.append(writer)
        async with browsing(f"http://127.0.0.1:{port}") as prober:
            assert (await prober.ask("GET", "/livez")).status == 200

            async def are_gone() -> bool:
                return sum(1 for reader in readers if reader.at_eof() or reader.exception()) >= CONNECTIONS_MAX

            await eventually(are_gone, what="the oldest connections are gone")
            assert not readers[-1].at_eof()
        assert runner.server is not None
        assert len(runner.server.connections) <= CONNECTIONS_MAX

        # What a stranger sends that is no request is not for the log.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nAuth orization: planted\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"400"
        assert "planted" not in caplog.text
    finally:
        for writer in writers:
            writer.close()
        await runner.cleanup()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_what_http_1_0_asks_is_not_asked_from_this_machine(serve: Serve) -> None:
    """A reverse proxy on this machine, as nginx is by default: our own name as Host, and no header that tells."""
    async with serve() as world:
        host, port = world.browser.url.removeprefix("http://").split(":")
        for path, status in (("/api/live", b"200"), ("/api/events", b"401")):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == status, path
            writer.close()
