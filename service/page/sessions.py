"""Who has signed in, and how often somebody may try to: in memory, bounded, and gone with the process."""

import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

SESSIONS_MAX: Final = 100
"""Of one process; who signs in beyond that ends the session that was used longest ago."""
ABSOLUTE_SECONDS: Final = 12 * 3600.0
IDLE_SECONDS: Final = 30 * 60.0
"""The open page asks every few seconds, so this is how long after it was closed a session ends."""

PEER_ATTEMPTS: Final = 5
PEER_REFILL_SECONDS: Final = 12.0
"""From one address (of IPv6, one network of 64 bits) so many attempts at once, then one in so many seconds."""
GLOBAL_ATTEMPTS: Final = 60
GLOBAL_REFILL_SECONDS: Final = 1.0
"""From all addresses together. The token is far too long to be guessed at any rate: this bounds work and log lines."""
PEERS_MAX: Final = 1000

_ID_BYTES: Final = 32
_IPV6_NETWORK_BITS: Final = 64
_FINGERPRINT_DIGITS: Final = 12


@dataclass(slots=True)
class Session:
    """Somebody who knew the token. `fingerprint` names it in the log without telling its id."""

    fingerprint: str
    csrf: str = field(repr=False)
    ends_at: float
    used_at: float


class Sessions:
    """The sessions of one process. Kept by a digest of their ids: what a memory dump shows signs nobody in."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        """The one that was used longest ago first."""

    def begin(self) -> tuple[str, Session]:
        """A new session, and its id, which is told once."""
        session_id = secrets.token_urlsafe(_ID_BYTES)
        now, digest = self._monotonic(), _digest(session_id)
        session = Session(
            fingerprint=digest.hex()[:_FINGERPRINT_DIGITS],
            csrf=secrets.token_urlsafe(_ID_BYTES),
            ends_at=now + ABSOLUTE_SECONDS,
            used_at=now,
        )
        self._sessions[digest] = session
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session_id, session

    def find(self, session_id: str | None) -> Session | None:
        """The session of this id, which is used by that; None where there is none, or no longer."""
        if not session_id:
            return None
        digest, now = _digest(session_id), self._monotonic()
        session = self._sessions.get(digest)
        if session is None:
            return None
        if now >= session.ends_at or now >= session.used_at + IDLE_SECONDS:
            del self._sessions[digest]
            return None
        session.used_at = now
        self._sessions.move_to_end(digest)
        return session

    def end(self, session_id: str | None) -> None:
        """End the session of this id, where there is one."""
        self._sessions.pop(_digest(session_id or ""), None)


class Throttle:
    """How often somebody may try to sign in: a bucket of attempts for each address, and one for all."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._all = _Bucket(GLOBAL_ATTEMPTS, GLOBAL_REFILL_SECONDS, monotonic())
        self._peers: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, peer: str | None) -> float:
        """Take one attempt, and return 0; or take none, and return in how many seconds there is one.

        Who is throttled by the own bucket takes nothing from the others'.
        """
        now, network = self._monotonic(), _network(peer)
        bucket = self._peers.pop(network, None) or _Bucket(PEER_ATTEMPTS, PEER_REFILL_SECONDS, now)
        self._peers[network] = bucket
        if len(self._peers) > PEERS_MAX:
            # Whoever has that many addresses meets the bucket for all.
            self._peers.popitem(last=False)
        for each in (bucket, self._all):
            if (seconds := each.missing(now)) > 0:
                return seconds
        bucket.take()
        self._all.take()
        return 0.0


class _Bucket:
    """So many at once, and one more after each interval."""

    __slots__ = ("_at", "_interval", "_left", "_size")

    def __init__(self, size: int, interval: float, now: float) -> None:
        self._size, self._interval, self._left, self._at = size, interval, float(size), now

    def missing(self, now: float) -> float:
        """In how many seconds there is one; 0 now."""
        self._left = min(self._size, self._left + max(0.0, now - self._at) / self._interval)
        self._at = now
        return max(0.0, (1 - self._left) * self._interval)

    def take(self) -> None:
        self._left -= 1


def _network(peer: str | None) -> str:
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))


def _digest(session_id: str) -> bytes:
    return sha256(session_id.encode(errors="surrogatepass")).digest()
