"""Who may what on the admin port: three rings, each within the one before, as pure functions of one request.

PAGE    the page's own files, the session, live figures, consumers: whoever asks by a name of ours. A browser on an
        operator's machine can be made to ask for any URL; by its Host it is known whether somebody else's name was
        pointed at us (DNS rebinding), whose pages could then read what we answer.
DATA    what came in, and what is parked: asked from this machine itself, or with a session.
REPLAY  what changes something: a session, its CSRF token, and nobody else's page behind it.

Headers that a proxy writes (Forwarded, X-Forwarded-For, …) are never believed, since anybody can write them. That one
is there takes something away: who asks through a proxy is not on this machine, whatever the proxy's address is.
"""

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final

from service.events import Secret
from service.page.sessions import Session

_FORWARDING_NAMES: Final = frozenset({"via", "cdn-loop"})
_FORWARDING_PREFIX: Final = "x-envoy-"
_FORWARDING_PART: Final = "forwarded"
_FORWARDING_ENDS: Final = ("-real-ip", "-client-ip", "-connecting-ip")
"""By what they have in common: each proxy has its own, and too many here only ask for a session."""

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # No other site's page gets our answers into its process, not even as an image that it cannot read.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_LOOPBACK_NAME: Final = "localhost"
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 -- they are no names to be asked by
_OWN_FETCHES: Final = frozenset({None, "same-origin", "none"})
"""`Sec-Fetch-Site` of our own page, of an address that somebody typed, and of what is no browser."""


class Ring(IntEnum):
    """What a request asks for."""

    PAGE = 1
    DATA = 2
    REPLAY = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: an HTTP status and the error's code, with words for a person."""

    status: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of who asks. `hosts` and `origins` are all headers of the name, as they came."""

    peer: str | None
    hosts: tuple[str, ...]
    origins: tuple[str, ...] = ()
    fetch_site: str | None = None
    forwarded: bool = False
    session: Session | None = None
    csrf: str | None = field(default=None, repr=False)


HOST_NOT_ALLOWED: Final = Refusal(
    403, "host_not_allowed", "this name is none of ours: admin.allowed_hosts takes the names that the page is asked by"
)
ORIGIN_NOT_ALLOWED: Final = Refusal(403, "origin_not_allowed", "the request comes from another site's page")
SIGN_IN_NEEDED: Final = Refusal(401, "sign_in_needed", "sign in with the admin token first")
NO_TOKEN: Final = Refusal(403, "no_token", "nobody can sign in before admin.token is configured")
CSRF_WRONG: Final = Refusal(403, "csrf_wrong", "the session's X-CSRF-Token is missing or another one's")


class Access:
    """The rules of one process."""

    def __init__(self, *, token: Secret | None, admin_host: str, allowed_hosts: Iterable[str] = ()) -> None:
        self._token_digest = None if token is None else _digest(token.value)
        own = {admin_host.lower(), *(host.lower().strip("[]") for host in allowed_hosts)}
        self._hosts = frozenset(own - _WILDCARDS)

    @property
    def token_configured(self) -> bool:
        """Whether anybody can sign in."""
        return self._token_digest is not None

    def opens(self, token: str) -> bool:
        """Whether this is the admin token. Takes the same time whatever it has in common with it."""
        return self._token_digest is not None and hmac.compare_digest(_digest(token), self._token_digest)

    def refusal(self, ring: Ring, asked: Asked, *, reads: bool = True) -> Refusal | None:
        """Why a request may not have what is in the ring; None where it may. `reads`: it changes nothing."""
        if not self._is_ours(asked.hosts):
            return HOST_NOT_ALLOWED
        if not reads and not _is_same_origin(asked):
            return ORIGIN_NOT_ALLOWED
        if ring is Ring.PAGE or (ring is Ring.DATA and _is_on_this_machine(asked)):
            return None
        if asked.session is None:
            return SIGN_IN_NEEDED if self.token_configured else NO_TOKEN
        if ring is Ring.REPLAY:
            return csrf_refusal(asked)
        return None

    def _is_ours(self, hosts: tuple[str, ...]) -> bool:
        # Of two Host headers nobody knows which one a proxy in front of us has looked at.
        if len(hosts) != 1 or (name := host_name(hosts[0])) is None:
            return False
        return name in self._hosts or _is_loopback_name(name)


def csrf_refusal(asked: Asked) -> Refusal | None:
    """Why what a session is asked to do was not asked for by its own page."""
    if asked.session is None:
        return SIGN_IN_NEEDED
    given = (asked.csrf or "").encode(errors="replace")
    return None if hmac.compare_digest(given, asked.session.csrf.encode()) else CSRF_WRONG


def from_elsewhere(asked: Asked) -> bool:
    """Whether a browser says that another site's page asks."""
    return asked.fetch_site not in _OWN_FETCHES


def is_forwarded(header_names: Iterable[str]) -> bool:
    """Whether a proxy says that it asks for somebody else."""
    return any(
        name in _FORWARDING_NAMES
        or name.startswith(_FORWARDING_PREFIX)
        or name.endswith(_FORWARDING_ENDS)
        or _FORWARDING_PART in name
        for name in map(str.lower, header_names)
    )


def is_loopback(address: str | None) -> bool:
    """Whether a peer's address is this machine's own, also in the form that IPv4 has on an IPv6 socket."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def host_name(host: str) -> str | None:
    """The name or address of a Host header in lower case, without port and brackets; None where it is malformed."""
    host = host.strip().lower()
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        port = rest.removeprefix(":") if rest.startswith(":") else rest
        return name if bracket and name and (rest == "" or (rest != port and port.isdecimal())) else None
    name, colon, port = host.partition(":")
    return name if name and (not colon or port.isdecimal()) else None


def _is_loopback_name(name: str) -> bool:
    return name == _LOOPBACK_NAME or is_loopback(name)


def _is_on_this_machine(asked: Asked) -> bool:
    """Whether somebody on this machine asks: by its address, and by the name that it was asked by."""
    name = host_name(asked.hosts[0]) if asked.hosts else None
    return not asked.forwarded and is_loopback(asked.peer) and name is not None and _is_loopback_name(name)


def _is_same_origin(asked: Asked) -> bool:
    """Whether the request comes from a page of ours, or from no page. The scheme is open: a proxy may speak TLS."""
    if from_elsewhere(asked) or len(asked.origins) > 1:
        return False
    if not asked.origins:
        return True
    scheme, separator, host = asked.origins[0].lower().partition("://")
    return bool(separator) and scheme in {"http", "https"} and host == asked.hosts[0].strip().lower()


def _digest(token: str) -> bytes:
    # Of one length whatever was given, which a comparison would tell otherwise.
    return sha256(token.encode(errors="surrogatepass")).digest()
