"""A server of the operator's page with answers that a test chooses: states that a real one is seldom in."""

import math
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from aiohttp import web

from service.page.access import SECURITY_HEADERS

STATIC: Final = Path(__file__).parents[2] / "service" / "page" / "static"
COOKIE: Final = "fake_session"

Json: TypeAlias = dict[str, Any]

NOW: Final = datetime(2026, 11, 21, 3, 12, 4, tzinfo=UTC)
ACCOUNT: Final = "acct_1N5GkqHc2vRtWp"
HOSTILE: Final = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202egnp.\"'`"


def iso(seconds_ago: float) -> str:
    """A moment so long before `NOW`."""
    return (NOW - timedelta(seconds=seconds_ago)).isoformat()


def arrival(number: int, **changes: Any) -> Json:
    """A row of the event log: an accepted delivery, changed."""
    row: Json = {
        "arrival_id": number,
        "received_at": iso(10_000 - number),
        "ingest_source": "webhook",
        "endpoint": "shop",
        "outcome": "accepted",
        "event_id": f"evt_1QF{number:05d}Hc2vRtWpYx",
        "event_type": "payment_intent.succeeded",
        "account": ACCOUNT,
        "livemode": True,
        "object_type": "payment_intent",
        "object_id": f"pi_3QF{number:05d}Hc2vRtWpYx",
        "customer_id": "cus_R9aXb2LkQm41Zt",
        "created_at": iso(10_001.2 - number),
        "api_version": "2026-10-28.endive",
        "signed_at": iso(10_000.4 - number),
        "secret": "5f2c9a1e",
        "topic": "stripe.payments",
        "partition": number % 6,
        "record_offset": 18_200 + number,
        "dedupe": "checked",
        "reason": None,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    return row | changes


def live_answer(*, points: int = 300, rate: float = 4.0) -> Json:
    """Ten minutes of a shop in the evening, with a short outage of the broker in the middle."""
    now = NOW.timestamp()
    at = [now - 2 * (points - 1 - place) for place in range(points)]
    wave = [rate * (1 + 0.5 * math.sin(place / 23) + 0.3 * math.sin(place / 3.1)) for place in range(points)]
    outage = range(points * 4 // 10, points * 4 // 10 + points // 20)
    return {
        "now": now,
        "every_seconds": 2,
        "at": at,
        "outcomes": {
            "accepted": [0.0 if place in outage else round(value, 2) for place, value in enumerate(wave)],
            "duplicate": [round(value / 9, 2) for value in wave],
            "broker_unavailable": [round(value, 2) if place in outage else 0.0 for place, value in enumerate(wave)],
            "signature_mismatch": [0.5 if place % 90 == 17 else 0.0 for place in range(points)],
        },
        "p50_ms": [4.0 + value / 4 for value in wave],
        "p99_ms": [None if place in outage else 11.0 + 2 * value for place, value in enumerate(wave)],
        "in_flight": [int(value) for value in wave],
        "loop_lag_ms": [0.3 + (place % 7) / 10 for place in range(points)],
        "endpoints": [
            {
                "name": "shop", "path": "/webhooks/shop", "mode": "live", "account": None, "last_event_at": now - 3,
                "per_minute": 238.4, "refused_per_minute": 0.0, "clock_skew_seconds": 0.2,
                "secrets": [{"fingerprint": "5f2c9a1e", "verified": 104_233}, {"fingerprint": "c04be8d7", "verified": 12}],
                "problems": [], "undelivered": 0, "health": "ok",
            },
            {
                "name": "old-shop", "path": "/api/v1/webhook/payment", "mode": "test", "account": ACCOUNT,
                "last_event_at": now - 93_784, "per_minute": 0.0, "refused_per_minute": 0.3, "clock_skew_seconds": None,
                "secrets": [{"fingerprint": "91d0aa37", "verified": 4}], "problems": [], "undelivered": None,
                "health": "quiet",
            },
        ],
        "totals": {"accepted": 104_245, "duplicate": 11_680, "quarantined": 3, "refused": 41, "unavailable": 62, "bypassed": 0},
        "ready": True,
        "problems": [],
    }  # fmt: skip


def consumers_answer(lag: int = 0) -> Json:
    """Four projections; the first is behind by so many records."""
    now = NOW.timestamp()

    def group(projection: str, topic: str, behind: int) -> Json:
        return {
            "projection": projection,
            "group": f"stripe.{projection}",
            "lag": behind,
            "overdue": 0,
            "updated_at": now - 1,
            "partitions": [
                {
                    "topic": f"stripe.{topic}",
                    "partition": number,
                    "next_offset": 18_000 + number,
                    "end_offset": 18_000 + number + (behind if number == 0 else 0),
                    "lag": behind if number == 0 else 0,
                    "overdue": 0,
                    "updated_at": now - 1,
                    "problem": None,
                }
                for number in range(6)
            ],
        }

    groups = [
        group(name, name, lag if name == "payments" else 0)
        for name in ("payments", "refunds", "subscriptions", "catalog")
    ]
    return {"groups": groups, "parked": {"dead-letter": 0, "quarantine": 0}, "problem": None}


def payment_answer() -> Json:
    """A payment in yen that was declined once, and then paid."""
    payment_id = "pi_3QF00007Hc2vRtWpYx"

    def entry(event_type: str, seconds: int, changes: list[Json], **others: Any) -> Json:
        return {
            "event_id": f"evt_1QF{seconds:05d}Hc2vRtWpYx", "event_type": event_type, "object_type": "payment_intent",
            "object_id": payment_id, "created_at": iso(seconds), "applied_at": iso(seconds - 1), "no_op": False,
            "changes": changes,
        } | others  # fmt: skip

    def change(field: str, before: Any, after: Any) -> Json:
        return {"field": field, "from": before, "to": after}

    return {
        "kind": "payment", "account": ACCOUNT, "livemode": True,
        "row": {
            "account": ACCOUNT, "livemode": True, "payment_id": payment_id, "status": "succeeded", "amount_minor": 12_500,
            "amount_received_minor": 12_500, "amount_refunded_minor": 500, "fee_minor": 341, "currency": "jpy",
            "customer_id": "cus_R9aXb2LkQm41Zt", "charge_id": "ch_3QF00007Hc2vRtWpYx", "failure_code": None,
            "decline_code": None, "disputed": None, "metadata": {"order": HOSTILE}, "created_at": iso(9_000),
            "last_event_id": "evt_1QF08940Hc2vRtWpYx", "last_event_at": iso(8_940), "applied_at": iso(8_939),
        },
        "rows": [
            {"table": "payments", "id": payment_id, "status": "succeeded"},
            {"table": "refunds", "id": "re_3QF00007Hc2vRtWpYx", "status": "succeeded"},
        ],
        "entries": [
            entry("payment_intent.created", 9_000, [
                change("status", None, "requires_payment_method"), change("amount_minor", None, 12_500), change("currency", None, "jpy"),
            ]),
            entry("payment_intent.payment_failed", 8_960, [change("decline_code", None, "insufficient_funds")]),
            entry("payment_intent.succeeded", 8_940, [
                change("status", "requires_payment_method", "succeeded"), change("amount_received_minor", 0, 12_500),
                change("decline_code", "insufficient_funds", None),
            ]),
            entry("charge.succeeded", 8_940, [], no_op=True, object_type="charge", object_id="ch_3QF00007Hc2vRtWpYx"),
        ],
        "truncated": False,
    }  # fmt: skip


def parked(number: int, **changes: Any) -> Json:
    """A dead letter, changed."""
    record: Json = {
        "place": f"stripe.payments/stripe.payments/0/{number}",
        "id": f"evt_1QF{number:05d}Hc2vRtWpYx",
        "event_type": "charge.succeeded",
        "endpoint": "shop",
        "reason": "row_refused",
        "detail": "22003: a number is out of range",
        "consumer_group": "stripe.payments",
        "parked_at": iso(4_000 + number),
    }
    return record | changes


@dataclass
class FakePage:
    """What it answers; to be changed at any time. `token` None: nobody can sign in."""

    token: str | None = None
    data: bool = True
    down: bool = False
    """The API answers 502, as a proxy does where nobody is behind it."""
    live: Json = field(default_factory=live_answer)
    consumers: Json = field(default_factory=consumers_answer)
    arrivals: list[Json] = field(default_factory=lambda: [arrival(number) for number in range(120, 0, -1)])
    events: dict[str, Json] = field(default_factory=dict)
    objects: dict[str, Json] = field(default_factory=dict)
    truncated: bool = False
    """Of what is parked, some was not looked through."""
    parked: dict[str, list[Json]] = field(default_factory=lambda: {"dead-letter": [], "quarantine": []})
    replays: list[tuple[str, list[str], bool]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Paths with their queries, in order."""
    _session: str | None = None
    _csrf: str = field(default_factory=secrets.token_hex)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """It on a free port; its URL."""
        app = web.Application(middlewares=[self._around])
        app.router.add_get("/", self._index)
        app.router.add_get("/static/{name}", self._static)
        app.router.add_get("/api/session", self._who)
        app.router.add_post("/api/session", self._sign_in)
        app.router.add_delete("/api/session", self._sign_out)
        app.router.add_get("/api/live", self._live)
        app.router.add_get("/api/consumers", self._consumers)
        app.router.add_get("/api/events", self._events)
        app.router.add_get("/api/events/{id}", self._event)
        app.router.add_get("/api/objects/{id}", self._object)
        app.router.add_get("/api/parked/{topic}", self._parked)
        app.router.add_post("/api/parked/{topic}/replay", self._replay)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if self.down and request.path.startswith("/api/"):
            answer: web.StreamResponse = web.Response(status=502, text="nobody is behind this")
        elif self._needs_session(request):
            code = "sign_in_needed" if self.token else "no_token"
            answer = self._error(401 if self.token else 403, code, "sign in with the admin token first")
        else:
            answer = await handler(request)
        answer.headers.update(SECURITY_HEADERS)
        return answer

    def _needs_session(self, request: web.Request) -> bool:
        is_data = request.path.startswith(("/api/events", "/api/objects", "/api/parked"))
        return is_data and not self._signed_in(request) and (not self.data or request.method == "POST")

    def _signed_in(self, request: web.Request) -> bool:
        return self._session is not None and request.cookies.get(COOKIE) == self._session

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(body=(STATIC / "index.html").read_bytes(), content_type="text/html", charset="utf-8")

    async def _static(self, request: web.Request) -> web.Response:
        path = STATIC / Path(request.match_info["name"]).name
        kind = "text/css" if path.suffix == ".css" else "text/javascript"
        return web.Response(body=path.read_bytes(), content_type=kind, charset="utf-8")

    async def _json(self, body: Json, status: int = 200) -> web.Response:
        return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")

    def _error(self, status: int, code: str, detail: str) -> web.Response:
        body = orjson.dumps({"error": code, "detail": detail})
        return web.Response(status=status, body=body, content_type="application/json")

    async def _who(self, request: web.Request) -> web.Response:
        signed_in = self._signed_in(request)
        return await self._json(
            {
                "version": "0.1.0",
                "signed_in": signed_in,
                "token_configured": self.token is not None,
                "data": self.data or signed_in,
                "replay": signed_in,
                "csrf": self._csrf if signed_in else None,
            }
        )

    async def _sign_in(self, request: web.Request) -> web.Response:
        given = orjson.loads(await request.read())["token"]
        if given != self.token:
            return self._error(401, "token_wrong", "that is not the token")
        self._session = secrets.token_hex()
        answer = web.Response(status=204)
        answer.set_cookie(COOKIE, self._session, httponly=True, samesite="Strict", path="/")
        return answer

    async def _sign_out(self, _: web.Request) -> web.Response:
        self._session = None
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.Response:
        wanted = request.query.get("q", "")
        before = int(request.query.get("before", 10**12))
        limit = int(request.query.get("limit", 50))
        found = [
            row
            for row in self.arrivals
            if row["arrival_id"] < before
            and (not wanted or wanted in (row["event_id"], row["object_id"], row["customer_id"]))
        ]
        page = found[:limit]
        return await self._json({"arrivals": page, "next": page[-1]["arrival_id"] if len(found) > limit else None})

    async def _live(self, _: web.Request) -> web.Response:
        return await self._json(self.live)

    async def _consumers(self, _: web.Request) -> web.Response:
        return await self._json(self.consumers)

    async def _event(self, request: web.Request) -> web.Response:
        return await self._of(self.events, request)

    async def _object(self, request: web.Request) -> web.Response:
        return await self._of(self.objects, request)

    async def _of(self, answers: dict[str, Json], request: web.Request) -> web.Response:
        found = answers.get(request.match_info["id"])
        return await self._json(found) if found else self._error(404, "not_found", "nothing is known of it")

    async def _parked(self, request: web.Request) -> web.Response:
        wanted = request.query.get("id", "")
        records = [each for each in self.parked[request.match_info["topic"]] if wanted in ("", each["id"])]
        return await self._json({"records": records, "truncated": self.truncated})

    async def _replay(self, request: web.Request) -> web.Response:
        if request.headers.get("X-CSRF-Token") != self._csrf:
            return self._error(403, "csrf_wrong", "the session's X-CSRF-Token is missing")
        topic = request.match_info["topic"]
        body = orjson.loads(await request.read())
        self.replays.append((topic, body["places"], body["dry_run"]))
        outcome = "would_replay" if body["dry_run"] else "replayed"
        ids = {each["place"]: each["id"] for each in self.parked[topic]}
        results = [
            {"place": place, "id": ids[place], "outcome": outcome, "detail": "to stripe.payments"}
            for place in body["places"]
        ]
        return await self._json({"results": results})


def shop_page(**changes: Any) -> FakePage:
    """A page with an event, a payment and dead letters to look at."""
    first = arrival(70, event_id="evt_1QF08940Hc2vRtWpYx", object_id="pi_3QF00007Hc2vRtWpYx")
    again = first | {
        "arrival_id": 90,
        "received_at": iso(9_000),
        "outcome": "duplicate",
        "topic": None,
        "partition": None,
        "record_offset": None,
    }
    duplicate_of = {name: first[name] for name in ("arrival_id", "topic", "partition", "record_offset")}
    page = FakePage(**changes)
    page.arrivals[50] = first
    page.arrivals[30] = again
    page.arrivals[3] = arrival(
        117,
        outcome="quarantined",
        reason="not_an_event",
        event_id=None,
        event_type=None,
        object_id=None,
        topic="stripe.quarantine",
    )
    page.arrivals[5] = arrival(115, outcome="broker_unavailable", topic=None, partition=None, record_offset=None)
    page.arrivals[8] = arrival(112, event_type=HOSTILE, ingest_source="reconcile", secret=None, signed_at=None)
    page.events[first["event_id"]] = {
        "event_id": first["event_id"],
        "arrivals": [again | {"duplicate_of": duplicate_of}, first | {"duplicate_of": None}],
        "effects": [
            {
                "projection": "payments", "account": ACCOUNT, "livemode": True, "object_type": "payment_intent",
                "object_id": "pi_3QF00007Hc2vRtWpYx", "event_type": "payment_intent.succeeded", "created_at": iso(8_940),
                "applied_at": iso(9_929.6), "no_op": False,
                "rows": [{"table": "payments", "id": "pi_3QF00007Hc2vRtWpYx", "status": "succeeded"}],
            }
        ],
    }  # fmt: skip
    page.objects["pi_3QF00007Hc2vRtWpYx"] = payment_answer()
    page.objects["cus_R9aXb2LkQm41Zt"] = {
        "kind": "customer",
        "account": ACCOUNT,
        "livemode": True,
        "row": None,
        "rows": payment_answer()["rows"],
        "entries": [],
        "arrivals": page.arrivals[:3],
        "truncated": False,
    }
    page.parked["dead-letter"] = [parked(11), parked(12, consumer_group="stripe.refunds"), parked(13, detail=HOSTILE)]
    page.parked["quarantine"] = [
        parked(2, place="stripe.quarantine/1/2", id="9f86d081884c7d65", event_type=None, reason="not_an_event", detail="the body is no JSON", consumer_group=None)
    ]  # fmt: skip
    return page
