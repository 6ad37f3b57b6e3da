"""The page's HTTP side on the admin port: who may (see `access`), answers in JSON.

Every handler is bounded in time, and a few at once read data. Errors are `{"error": code, "detail": …}`; what nobody
foresaw is `internal_error`, with its trace in the log and nothing of it in the answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final, TypeAlias

import msgspec
import structlog
from aiohttp import web

from service.errors import ConfigurationError, IngestError
from service.page.access import (
    NO_TOKEN,
    ORIGIN_NOT_ALLOWED,
    SECURITY_HEADERS,
    Access,
    Asked,
    Refusal,
    Ring,
    csrf_refusal,
    from_elsewhere,
)
from service.page.asking import (
    PLACE,
    Refused,
    account_in,
    asked_by,
    cookie_name,
    id_in,
    id_of,
    json_body,
    limit_in,
    livemode_in,
    number_in,
    refuse,
    session_id,
)
from service.page.consumers import Consumers
from service.page.documents import arrivals_document, object_document, way_document
from service.page.files import INDEX, StaticFile
from service.page.live import Live
from service.page.parked import PLACES_MAX, Operator, Parking, ParkingPlace, ReplayRunning
from service.page.sessions import ABSOLUTE_SECONDS, Sessions, Throttle
from service.ports import OperatorReader
from service.projections.model import ObjectKey
from service.telemetry.metrics import PageMetrics
from service.telemetry.seldom import Seldom
from service.telemetry.traces import traced

ANSWER_SECONDS_MAX: Final = 20.0
REPLAY_SECONDS_MAX: Final = 60.0
DATA_AT_ONCE_MAX: Final = 4

ARRIVALS_DEFAULT: Final = 50
ARRIVALS_MAX: Final = 200
WAY_ARRIVALS_MAX: Final = 200
EFFECTS_MAX: Final = 100
ENTRIES_MAX: Final = 200
CHOICES_MAX: Final = 20
PARKED_DEFAULT: Final = 100
PARKED_MAX: Final = 500
HOURS_DEFAULT: Final = 24
HOURS_MAX: Final = 90 * 24
"""The retention of the side topics."""
ARRIVAL_ID_MAX: Final = 10**18 - 1

NOT_OF_THE_PAGE: Final = frozenset({"/metrics", "/livez", "/readyz"})
"""For whoever reaches the port, by any name."""

_BUSY: Final = Refusal(503, "busy", f"{DATA_AT_ONCE_MAX} requests read data already")
_NO_DATABASE: Final = Refusal(503, "no_database", "database.url is not configured: there is nothing to look in")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log: Final = structlog.get_logger("service.page")


class _SignIn(msgspec.Struct, frozen=True):
    token: str


class _Replay(msgspec.Struct, frozen=True):
    places: list[str]
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page's handlers need; composed by `bootstrap`."""

    version: str
    access: Access
    sessions: Sessions
    throttle: Throttle
    live: Live
    consumers: Consumers
    reader: OperatorReader | None
    parking: Parking
    places: Mapping[str, ParkingPlace]
    """By their names in URLs."""
    files: Mapping[str, StaticFile] = field(repr=False)
    metrics: PageMetrics


def add_page(app: web.Application, page: Page) -> None:
    """Put the page onto an admin application. What was there before stays as it was."""
    handlers = _Handlers(page)
    app.middlewares.append(handlers.guard)
    router = app.router
    router.add_get("/", handlers.index)
    router.add_get("/static/{name}", handlers.static)
    router.add_get("/api/session", handlers.session)
    router.add_post("/api/session", handlers.sign_in)
    router.add_delete("/api/session", handlers.sign_out)
    router.add_get("/api/live", handlers.live)
    router.add_get("/api/consumers", handlers.consumers)
    router.add_get("/api/events", handlers.events)
    router.add_get("/api/events/{id:.+}", handlers.event)
    router.add_get("/api/objects/{id:.+}", handlers.object)
    router.add_get("/api/parked/{place}", handlers.parked)
    router.add_post("/api/parked/{place}/replay", handlers.replay)


class _Handlers:
    """The handlers, and the bound on how many of them read data at once."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._reading = 0
        self._seldom = Seldom()
        self._refusals = Seldom()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every handler of the page: who may ask at all, how long it may take, and how it fails."""
        if request.path in NOT_OF_THE_PAGE:
            return await handler(request)
        response = await self._answer(request, handler)
        for name, value in SECURITY_HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        seconds = REPLAY_SECONDS_MAX if request.path.endswith("/replay") else ANSWER_SECONDS_MAX
        try:
            asked = asked_by(request, self._page.sessions)
            self._admit(Ring.PAGE, asked)
            if request.path.startswith("/api/") and from_elsewhere(asked):
                raise Refused(ORIGIN_NOT_ALLOWED)
            async with asyncio.timeout(seconds):
                return await handler(request)
        except Refused as refused:
            return _error(refused.refusal, retry_after_seconds=refused.retry_after_seconds)
        except web.HTTPMethodNotAllowed as error:
            return _error(Refusal(405, "method_not_allowed", "this path takes others"), Allow=error.headers["Allow"])
        except web.HTTPException as error:
            code = "not_found" if error.status == 404 else "bad_request"
            return _error(Refusal(error.status, code, error.reason))
        except ReplayRunning as running:
            return _error(Refusal(409, running.tag, str(running)))
        except IngestError as error:
            # No message of ours shows a secret or a payload; it names what is away, or which setting is wrong.
            retry = None if isinstance(error, ConfigurationError) else 5
            return _error(Refusal(503, error.tag, str(error)), retry_after_seconds=retry)
        except TimeoutError:
            return _error(Refusal(503, "timed_out", "it took too long"), retry_after_seconds=5)
        except Exception as unforeseen:  # noqa: BLE001 -- a process that receives must go on, and the asker be answered
            if (unsaid := self._seldom.due()) is not None:
                _log.error("page.unforeseen", path=_shown(request), unsaid=unsaid, **traced(unforeseen))
            return _error(Refusal(500, IngestError.tag, "see the process's log"))

    def _admit(self, ring: Ring, asked: Asked, *, reads: bool = True) -> None:
        refusal = self._page.access.refusal(ring, asked, reads=reads)
        if refusal is not None:
            raise Refused(refusal)

    def _asked(self, request: web.Request) -> Asked:
        return asked_by(request, self._page.sessions)

    # The page itself -------------------------------------------------------------------------------------------------

    async def index(self, request: web.Request) -> web.StreamResponse:
        """The page."""
        return self._file(request, INDEX)

    async def static(self, request: web.Request) -> web.StreamResponse:
        """One of its files."""
        return self._file(request, request.match_info["name"])

    def _file(self, request: web.Request, name: str) -> web.StreamResponse:
        file = self._page.files.get(name)
        if file is None:
            refuse(404, "not_found", "there is no such file")
        # To be asked for each time: after an upgrade the page and its scripts must be of one version.
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in {tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")}:
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers={**headers, "Content-Type": file.content_type})

    # The session -----------------------------------------------------------------------------------------------------

    async def session(self, request: web.Request) -> web.StreamResponse:
        """Who asks, and what they may."""
        asked = self._asked(request)
        return _json(
            {
                "version": self._page.version,
                "signed_in": asked.session is not None,
                "token_configured": self._page.access.token_configured,
                "data": self._page.access.refusal(Ring.DATA, asked) is None,
                "replay": asked.session is not None,
                "csrf": asked.session.csrf if asked.session is not None else None,
            }
        )

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Begin a session for who knows the token."""
        asked = self._asked(request)
        self._admit(Ring.PAGE, asked, reads=False)
        page = self._page
        if not page.access.token_configured:
            raise Refused(NO_TOKEN)
        given = await json_body(request, _SignIn)
        if (seconds := page.throttle.wait(asked.peer)) > 0:
            self._refused("throttled", asked)
            detail = "too many attempts: wait a little"
            raise Refused(Refusal(429, "throttled", detail), retry_after_seconds=ceil(seconds))
        if not page.access.opens(given.token):
            self._refused("refused", asked)
            refuse(401, "token_wrong", "this is not the admin token")
        page.sessions.end(session_id(request))
        new_id, session = page.sessions.begin()
        page.metrics.sign_ins.labels("signed_in").inc()
        _log.info("page.signed_in", session=session.fingerprint, peer=asked.peer)
        response = web.Response(status=204)
        response.set_cookie(
            cookie_name(request),
            new_id,
            max_age=int(ABSOLUTE_SECONDS),
            path="/",
            httponly=True,
            samesite="Strict",
            # We speak plain HTTP and believe no X-Forwarded-Proto. But a browser that is on the page by TLS says so in
            # the Origin of this very request, and whoever lies here only locks their own session out.
            secure=any(origin.lower().startswith("https://") for origin in asked.origins),
        )
        return response

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """End the session."""
        asked = self._asked(request)
        self._admit(Ring.PAGE, asked, reads=False)
        if (refusal := csrf_refusal(asked)) is not None:
            raise Refused(refusal)
        self._page.sessions.end(session_id(request))
        response = web.Response(status=204)
        response.del_cookie(cookie_name(request), path="/", httponly=True, samesite="Strict")
        return response

    def _refused(self, outcome: str, asked: Asked) -> None:
        self._page.metrics.sign_ins.labels(outcome).inc()
        if (unsaid := self._refusals.due()) is not None:
            _log.warning("page.sign_in_refused", outcome=outcome, peer=asked.peer, unsaid=unsaid)

    # Figures ---------------------------------------------------------------------------------------------------------

    async def live(self, _: web.Request) -> web.StreamResponse:
        """The figures of this process."""
        return _json(self._page.live.document())

    async def consumers(self, _: web.Request) -> web.StreamResponse:
        """How far the consumers of the deployment are."""
        return _json(await self._page.consumers.document())

    # Data ------------------------------------------------------------------------------------------------------------

    async def events(self, request: web.Request) -> web.StreamResponse:
        """What came in."""
        with self._data(request) as reader:
            limit = limit_in(request, default=ARRIVALS_DEFAULT, most=ARRIVALS_MAX)
            before = number_in(request, "before", default=None, most=ARRIVAL_ID_MAX)
            logged = await reader.arrivals(of=id_in(request, "q"), before=before, limit=limit + 1)
            return _json(arrivals_document(logged, limit))

    async def event(self, request: web.Request) -> web.StreamResponse:
        """One event's way."""
        with self._data(request) as reader:
            event_id = id_of(request.match_info["id"])
            logged = await reader.arrivals_of_event(event_id, limit=WAY_ARRIVALS_MAX)
            effects = await reader.effects(event_id, limit=EFFECTS_MAX)
            if not logged and not effects:
                refuse(404, "not_found", "nothing is known of this event")
            return _json(way_document(event_id, logged, effects))

    async def object(self, request: web.Request) -> web.StreamResponse:
        """One object's timeline, or the accounts to choose from where several have its id."""
        with self._data(request) as reader:
            object_id = id_of(request.match_info["id"])
            account, livemode = account_in(request), livemode_in(request)
            if account is not None and livemode is not None:
                choices = [(account, livemode)]
            else:
                known = await reader.whose(object_id, limit=CHOICES_MAX)
                choices = [each for each in known if account in (None, each[0]) and livemode in (None, each[1])]
            if len(choices) > 1:
                return _json({"choices": [{"account": each[0], "livemode": each[1]} for each in choices]})
            key = ObjectKey(*choices[0], object_id) if choices else None
            found = await reader.found(key, limit=ENTRIES_MAX) if key is not None else None
            if key is None or found is None:
                refuse(404, "not_found", "nothing is known of this id")
            # Not on the event loop: to order and compare a long history takes longer than a delivery may wait.
            return _json(await asyncio.to_thread(object_document, key, found))

    async def parked(self, request: web.Request) -> web.StreamResponse:
        """What is parked."""
        self._admit(Ring.DATA, self._asked(request))
        place = self._place(request)
        hours = number_in(request, "since_hours", default=HOURS_DEFAULT, most=HOURS_MAX) or HOURS_DEFAULT
        limit = limit_in(request, default=PARKED_DEFAULT, most=PARKED_MAX)
        name = id_in(request, "id")
        since = datetime.now(UTC) - timedelta(hours=hours)
        with self._slot():
            return _json(await self._page.parking.listing(place, since=since, limit=limit, name=name))

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """Put some of it on its way again."""
        asked = self._asked(request)
        self._admit(Ring.REPLAY, asked, reads=False)
        place = self._place(request)
        wanted = await json_body(request, _Replay)
        if not 1 <= len(wanted.places) <= PLACES_MAX:
            refuse(400, "bad_request", f"places: from 1 to {PLACES_MAX}")
        if not all(PLACE.fullmatch(each) for each in wanted.places):
            refuse(400, "bad_request", "places: as the list has them")
        by = Operator(asked.session.fingerprint if asked.session is not None else "", asked.peer)
        results = await self._page.parking.replay(place, wanted.places, dry_run=wanted.dry_run, by=by)
        return _json({"results": results})

    def _place(self, request: web.Request) -> ParkingPlace:
        place = self._page.places.get(request.match_info["place"])
        if place is None:
            refuse(404, "not_found", "there are " + ", ".join(self._page.places))
        return place

    @contextmanager
    def _data(self, request: web.Request) -> Iterator[OperatorReader]:
        """The database, for who may read data. Raises `Refused`."""
        self._admit(Ring.DATA, self._asked(request))
        if self._page.reader is None:
            raise Refused(_NO_DATABASE)
        with self._slot():
            yield self._page.reader

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._reading >= DATA_AT_ONCE_MAX:
            raise Refused(_BUSY, retry_after_seconds=1)
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1


def _json(document: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _error(refusal: Refusal, *, retry_after_seconds: int | None = None, **headers: str) -> web.Response:
    if retry_after_seconds is not None:
        headers["Retry-After"] = str(retry_after_seconds)
    return web.Response(
        status=refusal.status,
        body=msgspec.json.encode({"error": refusal.code, "detail": refusal.detail}),
        headers=headers,
        content_type="application/json",
    )


def _shown(request: web.Request) -> str:
    """The path's pattern: what was asked for is not for the log."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""
