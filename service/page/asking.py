"""What a request asks for, in its bounds: identifiers, numbers, JSON bodies. What is out of them is refused."""

import asyncio
import re
from typing import Final, NoReturn, TypeVar

import msgspec
from aiohttp import HttpVersion11, web

from service.page.access import Asked, Refusal, is_forwarded
from service.page.sessions import Sessions

BODY_SECONDS_MAX: Final = 5.0
BODY_BYTES_MAX: Final = 128 * 1024
"""A hundred of the longest places."""

COOKIE: Final = "stripe_ingest_session"

ID_CHARACTERS_MAX: Final = 500
"""As `normalize` takes them in."""
PLACE: Final = re.compile(r"[A-Za-z0-9._/-]{1,600}")
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_]{1,255}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_MODES: Final = {"true": True, "false": False}

T = TypeVar("T")


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, refusal: Refusal, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
        self.retry_after_seconds = retry_after_seconds


def refuse(status: int, code: str, detail: str) -> NoReturn:
    """Raise `Refused`."""
    raise Refused(Refusal(status, code, detail))


def asked_by(request: web.Request, sessions: Sessions) -> Asked:
    """What a request says of who asks."""
    return Asked(
        peer=request.remote,
        hosts=tuple(request.headers.getall("Host", ())),
        origins=tuple(request.headers.getall("Origin", ())),
        fetch_site=request.headers.get("Sec-Fetch-Site"),
        # By default nginx says nothing of itself and asks by our own name, in HTTP/1.0, which no browser speaks.
        forwarded=is_forwarded(request.headers) or request.version < HttpVersion11,
        session=sessions.find(session_id(request)),
        csrf=request.headers.get("X-CSRF-Token"),
    )


def cookie_name(request: web.Request) -> str:
    """The session cookie's, with our port in it: browsers send a host's cookies to all its ports.

    Several workers have a port each, and sessions of their own: one's must not replace another's.
    """
    address = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return f"{COOKIE}_{address[1]}" if address else COOKIE


def session_id(request: web.Request) -> str | None:
    """The session's id that a request has, if any."""
    return request.cookies.get(cookie_name(request))


def id_of(text: str) -> str:
    """An id of Stripe's: whatever is taken in as one, since products and prices have ids that people choose.

    It is only ever a statement's parameter. Raises `Refused`.
    """
    if not 1 <= len(text) <= ID_CHARACTERS_MAX or not text.isprintable():
        refuse(400, "bad_request", f"an id has 1 to {ID_CHARACTERS_MAX} printable characters")
    return text


def id_in(request: web.Request, name: str) -> str | None:
    """An id in the query; None where there is none. Raises `Refused`."""
    text = request.query.get(name, "").strip()
    return id_of(text) if text else None


def number_in(request: web.Request, name: str, *, default: int | None, most: int) -> int | None:
    """A whole number of at least 1 in the query; `default` where there is none. Raises `Refused`."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        refuse(400, "bad_request", f"{name}: a whole number from 1 to {most}")
    return int(text)


def limit_in(request: web.Request, *, default: int, most: int) -> int:
    """How many are asked for. Raises `Refused`."""
    return number_in(request, "limit", default=default, most=most) or default


def account_in(request: web.Request) -> str | None:
    """An account in the query; None where there is none. Raises `Refused`."""
    text = request.query.get("account", "")
    if text and not _ACCOUNT.fullmatch(text):
        refuse(400, "bad_request", "account: letters, digits and _ only")
    return text or None


def livemode_in(request: web.Request) -> bool | None:
    """A mode in the query; None where there is none. Raises `Refused`."""
    text = request.query.get("livemode", "")
    if text and text not in _MODES:
        refuse(400, "bad_request", "livemode: true or false")
    return _MODES.get(text)


async def json_body(request: web.Request, kind: type[T]) -> T:
    """A JSON body of this type. Raises `Refused`.

    Its content type must say so: another site's page can have a form sent here, but not with that type.
    """
    if request.content_type != "application/json":
        refuse(415, "json_needed", "Content-Type must be application/json")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        refuse(415, "json_needed", "the body must not be compressed")
    if (request.content_length or 0) > BODY_BYTES_MAX:
        refuse(413, "body_too_large", f"the body is over {BODY_BYTES_MAX} bytes")
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            body = await _read(request)
    except TimeoutError:
        refuse(408, "body_too_slow", "the body did not come in time")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Its message may quote what was sent.
        refuse(400, "bad_request", "the body is not the JSON that this takes")


async def _read(request: web.Request) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            refuse(413, "body_too_large", f"the body is over {BODY_BYTES_MAX} bytes")
    return bytes(body)
