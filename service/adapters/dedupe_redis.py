"""A dedupe store in Redis, shared by every receiver: one script per call, whatever the number of keys.

Each key holds either the lease of an owner or the mark DONE, and Redis itself forgets both in time, by its own clock.
A script runs alone on the server, so a claim's test and its set are one; and it is one request with one answer for
the whole batch, which for 32 keys costs this process an eighth of a pipeline of `SET … NX GET`. The price is that all
keys must live together: they share the hash tag `{prefix}`, which keeps the script legal behind a proxy in front of
shards. A Redis Cluster itself answers MOVED, and is unavailable here.

Redis may forget: an eviction, a restart without persistence, a failover that loses the last writes. It never makes up
a mark, so all of these cost a duplicate, never an event.
"""

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from service.errors import ConfigurationError, DedupeUnavailable
from service.events import ClaimKey, ClaimState

POOL_SIZE_MAX: Final = 4
"""Claims, confirms and releases each have one round trip under way at a time; one more for looking at the server."""

CALL_SECONDS_MAX: Final = 2.0
"""For a call with everything in it: waiting for a connection, making one, the script and its answer."""

CLOSE_SECONDS_MAX: Final = 1.0

PORT: Final = 6379
TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""The options that a `rediss://` URL may have, named as the driver names them."""

_DONE: Final = "1"
"""Redis keeps a small integer in less room than any string: 8 bytes of an event's 110."""


class _Script:
    """A Lua script, called by its digest and sent whole only where the server does not know it (any more)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# The clock stands still while a script runs: what made SET fail is there for GET. A key of another kind fails both.
_CLAIM: Final = _Script("""
local found = {}
for place, key in ipairs(KEYS) do
    if redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) then
        found[place] = 'new'
    elseif redis.call('GET', key) == ARGV[3] then
        found[place] = 'done'
    else
        found[place] = 'in_flight'
    end
end
return found
""")

_LOOK: Final = _Script("""
local found = {}
for place, key in ipairs(KEYS) do
    local held = redis.call('GET', key)
    found[place] = held == ARGV[1] and 'done' or held and 'in_flight' or 'new'
end
return found
""")

_CONFIRM: Final = _Script("""
for _, key in ipairs(KEYS) do
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
""")

_RELEASE: Final = _Script("""
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[1] then
        redis.call('DEL', key)
    end
end
""")

_STATES: Final = {state.value.encode(): state for state in ClaimState}


class RedisDedupeStore:
    """Claims in keys `{prefix}:scope/id` that run out by themselves, leases and marks alike.

    `key_prefix` keeps deployments apart that share a Redis; two that receive the same events must never share it.
    No connection is made before the first call: a receiver starts while its dedupe store is away.
    """

    def __init__(
        self, pool: ConnectionPool, *, key_prefix: str, lease_seconds: float = 30, retention_days: float = 31
    ) -> None:
        self._pool = pool
        self._slots = asyncio.Semaphore(POOL_SIZE_MAX)
        self._prefix = f"{{{key_prefix}}}"
        self._lease_milliseconds = str(round(lease_seconds * 1000))
        self._retention_milliseconds = str(round(retention_days * 86_400_000))

    @classmethod
    def at(cls, url: str, *, key_prefix: str, lease_seconds: float = 30, retention_days: float = 31) -> Self:
        """Make a store with a pool of its own, for `redis[s]://[user:password@]host[:port][/database]`.

        Raises `ConfigurationError` where the URL is none of these or names a file that cannot be used.
        """
        # No time-outs of the driver's (each would cost a task per call: ours covers everything), and no retries: a
        # claim that is sent again may meet itself. RESP2 needs no HELLO, and pushes nothing in between.
        pool = ConnectionPool(**_address(url), protocol=2, socket_timeout=None, socket_connect_timeout=None)
        return cls(pool, key_prefix=key_prefix, lease_seconds=lease_seconds, retention_days=retention_days)

    async def claim(self, keys: Collection[ClaimKey], *, owner: str) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.claim`."""
        return await self._states(keys, _CLAIM, _lease(owner), self._lease_milliseconds, _DONE)

    async def look(self, keys: Collection[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.look`."""
        return await self._states(keys, _LOOK, _DONE)

    async def confirm(self, keys: Collection[ClaimKey]) -> None:
        """See `DedupeStore.confirm`."""
        async with self._connection() as connection:
            await self._run(connection, _CONFIRM, keys, _DONE, self._retention_milliseconds)

    async def release(self, keys: Collection[ClaimKey], *, owner: str) -> None:
        """See `DedupeStore.release`."""
        async with self._connection() as connection:
            await self._run(connection, _RELEASE, keys, _lease(owner))

    async def evicting_policy(self) -> str | None:
        """The server's `maxmemory-policy` where it may throw marks away before their time; None where it keeps them.

        Raises `DedupeUnavailable`.
        """
        async with self._connection() as connection:
            answer = await _exchange(connection, "INFO", "memory")
            if not isinstance(answer, bytes):
                raise InvalidResponse("not a text")
        said = dict(line.split(":", 1) for line in answer.decode(errors="replace").splitlines() if ":" in line)
        policy = said.get("maxmemory_policy", "noeviction")
        return None if policy == "noeviction" or said.get("maxmemory") == "0" else policy

    async def close(self) -> None:
        """Give back the connections; whatever is still under way on them is cut off."""
        # A silent server's end of a TLS connection is not waited for.
        with suppress(RedisError, OSError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self._pool.disconnect()

    async def _states(
        self, keys: Collection[ClaimKey], script: _Script, *arguments: str
    ) -> Mapping[ClaimKey, ClaimState]:
        asked = list(dict.fromkeys(keys))
        async with self._connection() as connection:
            found = await self._run(connection, script, asked, *arguments)
            try:
                return {key: _STATES[state] for key, state in zip(asked, found, strict=True)}
            except (KeyError, TypeError, ValueError):
                raise InvalidResponse("not one state for each key") from None

    async def _run(
        self, connection: AbstractConnection, script: _Script, keys: Collection[ClaimKey], *arguments: str
    ) -> Any:
        names = [f"{self._prefix}:{key.scope}/{key.id}" for key in keys]
        try:
            return await _exchange(connection, "EVALSHA", script.digest, str(len(names)), *names, *arguments)
        except NoScriptError:
            return await _exchange(connection, "EVAL", script.text, str(len(names)), *names, *arguments)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        # uvloop's answer to writing on a connection that has just been lost is a RuntimeError.
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX), self._slots:
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
                try:
                    yield connection
                except BaseException:
                    # An answer that nobody read would be the next call's. And one that is an error may be a demoted
                    # server's, or one that is full or locked: the name may lead to a better one by now.
                    await connection.disconnect(nowait=True)
                    raise
                finally:
                    await self._pool.release(connection)
        except (RedisError, OSError, RuntimeError) as error:
            # Without its cause: a server that does not know AUTH answers with the password in its message.
            raise DedupeUnavailable(f"the dedupe store failed: {_reason(error)}") from None


async def _exchange(connection: AbstractConnection, *command: str) -> Any:
    # The stub says a tuple of one.
    await connection.send_packed_command(pack_command(command))  # type: ignore[arg-type]
    return await connection.read_response()


def _lease(owner: str) -> str:
    """What a key holds while `owner` has it; never the same as the mark."""
    return f"lease:{owner}"


def _reason(error: Exception) -> str:
    """What went wrong in the words of nobody outside: the driver's name for it, and the server's code."""
    code = re.match(r"[A-Z]+(?= )", str(error)) if isinstance(error, ResponseError) else None
    return f"{type(error).__name__} {code[0]}" if code else type(error).__name__


def _address(url: str) -> dict[str, Any]:
    """What the driver's pool is to be told. No message shows any part of the URL: it may be part of the password."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    database = parts.path.removeprefix("/")
    if not parts.hostname or parts.fragment or not re.fullmatch(r"[0-9]{0,5}", database):
        raise ConfigurationError(
            "dedupe.url: must be redis://[user:password@]host[:port][/database number], rediss:// with TLS;"
            " percent-encode what is special in user and password"
        )
    if parts.username and not parts.password:
        raise ConfigurationError("dedupe.url: has a user and no password; a password alone is redis://:password@host")
    if options and (parts.scheme != "rediss" or not options.keys() <= set(TLS_FILES)):
        raise ConfigurationError(
            "dedupe.url: has an option that is none; allowed, with rediss:// only, are " + ", ".join(TLS_FILES)
        )
    if parts.scheme == "rediss":
        _check_tls_files(**options)
    return {
        "connection_class": SSLConnection if parts.scheme == "rediss" else Connection,
        "host": parts.hostname,
        "port": parts.port or PORT,
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "db": int(database or 0),
        **options,
    }


def _check_tls_files(
    *, ssl_ca_certs: str | None = None, ssl_certfile: str | None = None, ssl_keyfile: str | None = None
) -> None:
    """The driver reads the files when it connects, which is too late to say that one is missing."""
    try:
        context = ssl.create_default_context(cafile=ssl_ca_certs)
        if ssl_certfile or ssl_keyfile:
            # An empty password makes an encrypted key an error here instead of a prompt on the terminal.
            context.load_cert_chain(ssl_certfile or "", ssl_keyfile, password="")
    except OSError as error:
        raise ConfigurationError(
            f"dedupe.url: {', '.join(TLS_FILES)}: cannot be used ({error.strerror or type(error).__name__})"
        ) from None
