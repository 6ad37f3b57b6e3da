"""The Redis dedupe store on a real server."""

import asyncio
import ipaddress
import socket
import ssl
import struct
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import hiredis
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.crc import key_slot
from structlog.testing import capture_logs

from service.adapters import dedupe_redis
from service.adapters.dedupe_redis import POOL_SIZE_MAX, RedisDedupeStore
from service.bootstrap import dedupe as bootstrap_dedupe
from service.config import Config, DedupeConfig, KafkaConfig
from service.errors import DedupeUnavailable
from service.events import ClaimState, Secret
from tests.contracts.dedupe_store import DONE, IN_FLIGHT, NEW, DedupeStoreContract, claim, key
from tests.support.stack import LocalRedis, running
from tests.support.waiting import eventually, free_port

HOUR = timedelta(hours=1)
RETENTION = timedelta(days=31)
PASSWORD = "hunter2"

_AGE = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
    local left = redis.call('PTTL', key)
    assert(left > 0, key .. ' does not run out')
    redis.call('PEXPIRE', key, left - ARGV[2])
end
"""


class RedisHarness:
    """A store whose keys are its own, and a second client that can make them older."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.store = RedisDedupeStore.at(url, key_prefix=prefix)
        self._client = Redis.from_url(url, socket_timeout=5)

    async def run(self, *command: str | int) -> Any:
        """What the server answers to a command of the test's own."""
        return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def let_leases_expire(self) -> None:
        await self._age(HOUR)

    async def let_retention_pass(self) -> None:
        await self._age(RETENTION)

    def name(self, id_: str) -> str:
        return f"{{{self.prefix}}}:event/{id_}"

    async def left(self, id_: str) -> timedelta:
        """How long the key has left."""
        return timedelta(milliseconds=await self.run("PTTL", self.name(id_)))

    async def close(self) -> None:
        await self.store.close()
        await self._client.aclose()

    async def _age(self, by: timedelta) -> None:
        await self.run("EVAL", _AGE, 0, f"{{{self.prefix}}}*", by // timedelta(milliseconds=1))


@pytest.fixture
async def harness(redis: LocalRedis, topic_prefix: str) -> AsyncIterator[RedisHarness]:
    made = RedisHarness(redis.url, topic_prefix)
    yield made
    await made.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalRedis]:
    """A server that a test may bring up against everybody."""
    async with running(LocalRedis(tmp_path / "redis")) as started:
        yield started


@pytest.fixture
async def alone(server: LocalRedis, topic_prefix: str) -> AsyncIterator[RedisHarness]:
    """A harness on a server of its own."""
    made = RedisHarness(server.url, topic_prefix)
    yield made
    await made.close()


def calls(store: RedisDedupeStore) -> list[Callable[[], Awaitable[object]]]:
    """Every call that there is."""
    return [
        lambda: store.claim([key("evt_1")], owner="a"),
        lambda: store.confirm([key("evt_1")]),
        lambda: store.release([key("evt_1")], owner="a"),
        store.evicting_policy,
    ]


async def refusal(call: Awaitable[object]) -> str:
    """What the call is refused with, as a log would show it."""
    with pytest.raises(DedupeUnavailable) as caught:
        await call
    return "".join(traceback.format_exception(caught.value))


async def until_it_answers(harness: RedisHarness, id_: str, *, owner: str) -> ClaimState:
    """What a claim finds, once the store has found its way back."""
    found: list[ClaimState] = []

    async def answered() -> bool:
        try:
            found.append(await claim(harness, id_, owner=owner))
        except DedupeUnavailable:
            return False
        return True

    await eventually(answered, what="the store answers")
    return found[-1]


class TestRedisDedupeStore(DedupeStoreContract):
    """The contract of every dedupe store."""


# What is kept.


async def test_a_lease_and_a_mark_run_out_by_themselves_in_time(harness: RedisHarness) -> None:
    await claim(harness, "evt_1", owner="a")
    await claim(harness, "evt_2", owner="a")
    await harness.store.confirm([key("evt_2"), key("evt_3")])

    assert timedelta(seconds=20) < await harness.left("evt_1") <= timedelta(seconds=30)
    for confirmed in ("evt_2", "evt_3"):
        assert RETENTION - timedelta(minutes=1) < await harness.left(confirmed) <= RETENTION


async def test_lease_and_retention_are_settings(harness: RedisHarness) -> None:
    other = RedisDedupeStore.at(harness.url, key_prefix=harness.prefix, lease_seconds=7200, retention_days=0.04)
    await other.claim([key("evt_1")], owner="a")
    await other.confirm([key("evt_2")])
    await other.close()
    await harness.let_leases_expire()

    assert await claim(harness, "evt_1", owner="b") is IN_FLIGHT
    assert await claim(harness, "evt_2", owner="b") is NEW


async def test_deployments_with_prefixes_of_their_own_are_apart(harness: RedisHarness) -> None:
    other = RedisDedupeStore.at(harness.url, key_prefix=f"{harness.prefix}-b")
    await other.confirm([key("evt_1")])
    await other.close()

    assert await claim(harness, "evt_1", owner="a") is NEW


async def test_all_keys_of_a_deployment_are_in_one_slot(alone: RedisHarness) -> None:
    await alone.store.claim([key(f"evt_{n}") for n in range(20)], owner="a")
    await alone.store.confirm([key("evt_1", scope="quarantine:shop")])

    names = await alone.run("KEYS", "*")
    assert len(names) == 21
    assert len({key_slot(name) for name in names}) == 1


async def test_an_owner_may_be_called_anything(harness: RedisHarness) -> None:
    await claim(harness, "evt_1", owner="1")
    assert await claim(harness, "evt_1", owner="b") is IN_FLIGHT
    await harness.store.release([key("evt_1")], owner="1")
    assert await claim(harness, "evt_1", owner="b") is NEW


# Batches and races.


async def test_a_large_batch_with_each_key_twice_is_one_call(harness: RedisHarness) -> None:
    keys = [key(f"evt_{n}") for n in range(2500)]
    await harness.store.confirm(keys[:500] * 2)

    found = await harness.store.claim(keys + keys[::-1], owner="a")

    assert list(found) == keys
    assert set(list(found.values())[:500]) == {DONE}
    assert set(list(found.values())[500:]) == {NEW}
    await harness.store.release(keys * 2, owner="a")
    assert Counter((await harness.store.claim(keys, owner="b")).values()) == {DONE: 500, NEW: 2000}


_RACER = """
import asyncio, random, sys
from service.adapters.dedupe_redis import RedisDedupeStore
from service.events import ClaimKey, ClaimState

async def main(url, prefix, owner):
    store = RedisDedupeStore.at(url, key_prefix=prefix)
    keys = [ClaimKey("event", f"evt_{n}") for n in range(200)]
    random.Random(owner).shuffle(keys)
    await store.claim([ClaimKey("warm", owner)], owner=owner)
    print("ready", flush=True)
    sys.stdin.readline()
    batches = [keys[n : n + 7] for n in range(0, len(keys), 7)]
    for answer in await asyncio.gather(*(store.claim(batch, owner=owner) for batch in batches)):
        for key, state in answer.items():
            if state is ClaimState.NEW:
                print(key.id)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_of_two_racing_processes_one_gets_each_of_200_keys(harness: RedisHarness) -> None:
    racers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _RACER, harness.url, harness.prefix, owner,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for owner in ("a", "b")
    ]  # fmt: skip
    try:
        async with asyncio.timeout(30):
            for racer in racers:
                assert racer.stdout is not None
                assert await racer.stdout.readline() == b"ready\n"
            said = await asyncio.gather(*(racer.communicate(b"go\n") for racer in racers))
    finally:
        for racer in racers:
            if racer.returncode is None:
                racer.kill()
                await racer.wait()

    assert [racer.returncode for racer in racers] == [0, 0]
    won = [line for out, _ in said for line in out.decode().split()]
    assert sorted(won) == sorted(f"evt_{n}" for n in range(200))


async def test_of_two_racing_stores_one_gets_each_of_200_keys(harness: RedisHarness) -> None:
    other = RedisDedupeStore.at(harness.url, key_prefix=harness.prefix)
    keys = [key(f"evt_{n}") for n in range(200)]
    answers = await asyncio.gather(
        *(harness.store.claim([each], owner="a") for each in keys),
        *(other.claim([each], owner="b") for each in reversed(keys)),
    )
    await other.close()

    found = Counter((each, state) for answer in answers for each, state in answer.items())
    assert found == {(each, state): 1 for each in keys for state in (NEW, IN_FLIGHT)}


async def test_scripts_that_the_server_has_forgotten_are_sent_again(alone: RedisHarness) -> None:
    for owner in ("a", "b"):
        assert await claim(alone, f"evt_{owner}", owner=owner) is NEW
        await alone.run("SCRIPT", "FLUSH")
        await alone.store.release([key(f"evt_{owner}")], owner=owner)
        await alone.run("SCRIPT", "FLUSH")
        assert await claim(alone, f"evt_{owner}", owner="c") is NEW
        await alone.run("SCRIPT", "FLUSH")
        await alone.store.confirm([key(f"evt_{owner}")])
        await alone.run("SCRIPT", "FLUSH")
        assert await claim(alone, f"evt_{owner}", owner="d") is DONE


async def test_a_call_sends_a_script_only_once(alone: RedisHarness) -> None:
    for n in range(3):
        await claim(alone, f"evt_{n}", owner="a")

    said = await alone.run("INFO", "commandstats")
    assert said["cmdstat_eval"]["calls"] == 1
    assert said["cmdstat_evalsha"]["calls"] == 3


# Connections.


async def test_connections_are_made_when_needed_bounded_and_given_back(alone: RedisHarness) -> None:
    async def connected() -> int:
        clients: int = (await alone.run("INFO", "clients"))["connected_clients"]
        return clients - 1

    assert await connected() == 0
    await asyncio.gather(*(claim(alone, f"evt_{n}", owner="a") for n in range(50)))
    assert 1 <= await connected() <= POOL_SIZE_MAX
    await alone.store.close()

    async def gone() -> bool:
        return await connected() == 0

    await eventually(gone, what="the server has seen the connections close")


async def test_a_server_that_is_away_is_unavailable_from_the_first_call_on_and_not_before() -> None:
    store = RedisDedupeStore.at(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0", key_prefix="x")
    for call in calls(store):
        said = await refusal(call())
        assert "evt_1" not in said
        assert PASSWORD not in said
    await store.close()


async def test_a_connection_that_the_server_has_closed_is_replaced_unnoticed(harness: RedisHarness) -> None:
    await asyncio.gather(*(claim(harness, f"evt_{n}", owner="a") for n in range(10)))
    await harness.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def noticed() -> bool:
        return not any(connection.is_connected and not connection._reader.at_eof() for connection in pooled(harness))

    await eventually(noticed, what="this side has seen the connections end")
    assert await claim(harness, "evt_1", owner="b") is IN_FLIGHT


def pooled(harness: RedisHarness) -> list[Any]:
    return list(harness.store._pool._available_connections)


async def test_a_killed_server_is_unavailable_at_once_and_is_found_again_with_its_marks(
    server: LocalRedis, alone: RedisHarness
) -> None:
    await alone.store.confirm([key("evt_done")])
    outcomes: Counter[str] = Counter()
    stop = False

    async def claim_on(owner: str) -> None:
        n = 0
        while not stop:
            n += 1
            try:
                await claim(alone, f"evt_{owner}_{n}", owner=owner)
                outcomes["answered"] += 1
            except DedupeUnavailable:
                outcomes["unavailable"] += 1
                await asyncio.sleep(0)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for owner in "abcdefgh":
            group.create_task(claim_on(owner))
        await eventually(lambda: outcomes["answered"] > 100, what="claims are under way")
        server.kill()
        await eventually(lambda: outcomes["unavailable"] >= 16, what="every claim fails")
        await server.start()
        before = outcomes["answered"]
        await eventually(lambda: outcomes["answered"] > before + 100, what="claims get through again")
        stop = True

    assert await claim(alone, "evt_done", owner="z") is DONE
    assert await claim(alone, "evt_a_1", owner="z") is IN_FLIGHT


async def test_a_server_that_has_lost_its_data_takes_everything_for_new(
    server: LocalRedis, alone: RedisHarness
) -> None:
    await alone.store.confirm([key("evt_1")])
    server.kill()
    for file in (server.data_dir / "appendonlydir").iterdir():
        file.unlink()
    await server.start()

    assert await until_it_answers(alone, "evt_1", owner="a") is NEW


async def test_answers_that_come_too_late_are_nobody_elses(server: LocalRedis, alone: RedisHarness) -> None:
    await alone.store.confirm([key(f"evt_done_{n}") for n in range(3)])
    await asyncio.gather(*(claim(alone, f"evt_{n}", owner="a") for n in range(20)))
    server.pause()
    for _ in range(2 * POOL_SIZE_MAX):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await alone.store.claim([key(f"evt_done_{n}") for n in range(3)], owner="b")
    fresh = [[key(f"evt_fresh_{n}_{m}") for m in range(3)] for n in range(3 * POOL_SIZE_MAX)]
    asking = [asyncio.create_task(alone.store.claim(keys, owner="c")) for keys in fresh]
    await asyncio.sleep(0)
    server.resume()

    for keys, answer in zip(fresh, await asyncio.gather(*asking), strict=True):
        assert answer == dict.fromkeys(keys, NEW)


async def test_a_server_that_falls_silent_holds_nobody_and_is_used_again_once_it_answers(
    server: LocalRedis, alone: RedisHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claim(alone, "evt_1", owner="a")
    monkeypatch.setattr(dedupe_redis, "CALL_SECONDS_MAX", 0.1)
    server.pause()
    async with asyncio.timeout(20):
        for _ in range(POOL_SIZE_MAX + 1):
            for call in calls(alone.store):
                await refusal(call())
        together = await asyncio.gather(*(call() for call in calls(alone.store) * 5), return_exceptions=True)
    assert {type(outcome) for outcome in together} == {DedupeUnavailable}
    server.resume()
    monkeypatch.undo()

    assert await until_it_answers(alone, "evt_2", owner="b") in {NEW, IN_FLIGHT}
    assert await claim(alone, "evt_3", owner="b") is NEW


async def test_closing_does_not_wait_for_a_silent_server(server: LocalRedis, alone: RedisHarness) -> None:
    await claim(alone, "evt_1", owner="a")
    server.pause()
    waiting = [asyncio.create_task(claim(alone, f"evt_{n}", owner="a")) for n in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await alone.store.close()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, DedupeUnavailable)
    server.resume()


# Servers that refuse.


@pytest.mark.parametrize("credentials", ["", ":wrong-secret@", "somebody:wrong-secret@"])
async def test_a_server_that_does_not_let_us_in_is_unavailable(alone: RedisHarness, credentials: str) -> None:
    await alone.run("CONFIG", "SET", "requirepass", PASSWORD)
    store = RedisDedupeStore.at(alone.url.replace("://", f"://{credentials}"), key_prefix=alone.prefix)
    for call in calls(store):
        said = await refusal(call())
        assert "AuthenticationError" in said
        assert "wrong-secret" not in said
    await store.close()

    store = RedisDedupeStore.at(alone.url.replace("://", f"://:{PASSWORD}@"), key_prefix=alone.prefix)
    assert await store.claim([key("evt_1")], owner="a") == {key("evt_1"): NEW}
    await store.close()


async def test_a_user_with_few_rights_is_enough(alone: RedisHarness) -> None:
    rights = ("+eval", "+evalsha", "+set", "+get", "+del")
    await alone.run("ACL", "SETUSER", "ingest", "on", f">p@{PASSWORD}", f"~{{{alone.prefix}}}:*", *rights)
    store = RedisDedupeStore.at(alone.url.replace("://", f"://ingest:p%40{PASSWORD}@"), key_prefix=alone.prefix)

    assert await store.claim([key("evt_1"), key("evt_2")], owner="a") == {key("evt_1"): NEW, key("evt_2"): NEW}
    await store.confirm([key("evt_1")])
    await store.release([key("evt_2")], owner="a")
    assert await store.claim([key("evt_1"), key("evt_2")], owner="b") == {key("evt_1"): DONE, key("evt_2"): NEW}
    assert "NoPermissionError" in await refusal(store.evicting_policy())
    await store.close()


async def test_the_database_is_that_of_the_url(alone: RedisHarness) -> None:
    other = RedisDedupeStore.at(alone.url.removesuffix("/0") + "/7", key_prefix=alone.prefix)
    await other.confirm([key("evt_1")])
    assert await claim(alone, "evt_1", owner="a") is NEW
    assert await other.claim([key("evt_1")], owner="a") == {key("evt_1"): DONE}
    await other.close()


async def test_a_replica_is_unavailable_until_it_is_the_primary(alone: RedisHarness) -> None:
    await claim(alone, "evt_1", owner="a")
    await alone.run("REPLICAOF", "127.0.0.1", free_port())
    for call in calls(alone.store)[:3]:
        assert "ReadOnlyError" in await refusal(call())
    await alone.run("REPLICAOF", "NO", "ONE")

    assert await claim(alone, "evt_2", owner="a") is NEW


async def test_a_full_server_is_unavailable_and_lets_go_of_claims(alone: RedisHarness) -> None:
    await claim(alone, "evt_1", owner="a")
    await alone.run("CONFIG", "SET", "maxmemory", "1")
    assert "OutOfMemoryError" in await refusal(claim(alone, "evt_2", owner="a"))
    assert "OutOfMemoryError" in await refusal(alone.store.confirm([key("evt_1")]))
    await alone.store.release([key("evt_1")], owner="a")
    await alone.run("CONFIG", "SET", "maxmemory", "0")

    assert await claim(alone, "evt_1", owner="b") is NEW


async def test_a_key_of_another_kind_is_unavailable_and_left_alone(harness: RedisHarness) -> None:
    await harness.run("LPUSH", harness.name("evt_1"), "somebody else's")
    assert "ResponseError WRONGTYPE" in await refusal(claim(harness, "evt_1", owner="a"))
    assert "ResponseError WRONGTYPE" in await refusal(harness.store.release([key("evt_1")], owner="a"))
    assert await harness.run("LLEN", harness.name("evt_1")) == 1

    assert await claim(harness, "evt_2", owner="a") is NEW


_NEW = b"*1\r\n$3\r\nnew\r\n"
_ANSWERS = {
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "moved": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "cluster down": b"-CLUSTERDOWN The cluster is down\r\n",
    "no login": b"-NOAUTH Authentication required.\r\n",
    "no master": b"-MASTERDOWN Link with MASTER is down\r\n",
    "busy": b"-BUSY Redis is busy running a script\r\n",
    "not in one slot": b"-CROSSSLOT Keys in request don't hash to the same slot\r\n",
    "no scripts": b"-NOSCRIPT No matching script.\r\n",
    "too few replicas": b"-NOREPLICAS Not enough good replicas to write.\r\n",
    "an echo": f"-ERR unknown command 'AUTH', with args beginning with: '{PASSWORD}'\r\n".encode(),
    "too few": b"*0\r\n",
    "too many": b"*2\r\n$3\r\nnew\r\n$3\r\nnew\r\n",
    "not a state": b"*1\r\n$4\r\nnope\r\n",
    "a list": b"*1\r\n*0\r\n",
    "an error inside": b"*1\r\n-ERR no\r\n",
    "not a list": b"+OK\r\n",
    "a number": b":1\r\n",
    "nothing": b"*-1\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "the end": b"",
}


@asynccontextmanager
async def answering(
    answer: Callable[[Sequence[bytes]], bytes], writers: list[asyncio.StreamWriter] | None = None
) -> AsyncIterator[str]:
    """The address of a server that gives this answer to each command, and hangs up where there is none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writers is not None:
            writers.append(writer)
        commands = hiredis.Reader()
        while received := await reader.read(65536):
            commands.feed(received)
            while isinstance(command := commands.gets(), list):
                if not (said := answer(command)):
                    writer.close()
                    return
                writer.write(said)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("said", _ANSWERS.values(), ids=_ANSWERS)
async def test_whatever_a_server_says_that_is_no_answer_is_unavailable(said: bytes) -> None:
    def answer(command: Sequence[bytes]) -> bytes:
        return said if command[0] in {b"EVAL", b"EVALSHA"} else b"+OK\r\n"

    async with answering(answer) as address:
        store = RedisDedupeStore.at(f"redis://:{PASSWORD}@{address}", key_prefix="x")
        for _ in range(2):
            shown = await refusal(store.claim([key("evt_1")], owner="a"))
            assert PASSWORD not in shown
        await store.close()


async def test_a_server_that_repeats_the_password_does_not_make_us_repeat_it() -> None:
    def answer(command: Sequence[bytes]) -> bytes:
        return _ANSWERS["an echo"] if command[0] == b"AUTH" else b"+OK\r\n"

    async with answering(answer) as address:
        store = RedisDedupeStore.at(f"redis://:{PASSWORD}@{address}", key_prefix="x")
        for call in calls(store):
            assert PASSWORD not in await refusal(call())
        assert PASSWORD not in repr(store)
        await store.close()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_a_connection_that_was_reset_fails_one_call_at_most_on_either_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    # The loops differ in how they say that a connection is gone.
    async def reset_in_between() -> list[ClaimState | str]:
        writers: list[asyncio.StreamWriter] = []
        found: list[ClaimState | str] = []
        async with answering(lambda command: _NEW if command[0] == b"EVALSHA" else b"+OK\r\n", writers) as address:
            store = RedisDedupeStore.at(f"redis://{address}", key_prefix="x")
            found += (await store.claim([key("evt_1")], owner="a")).values()
            linger = struct.pack("ii", 1, 0)
            writers[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writers[0].transport.abort()
            (connection,) = store._pool._available_connections
            assert isinstance(connection, Connection)
            reader = connection._reader
            assert reader is not None
            await eventually(reader.exception, what="this side has seen the reset")
            for _ in range(2):
                try:
                    found += (await store.claim([key("evt_1")], owner="a")).values()
                except DedupeUnavailable:
                    found.append("unavailable")
            await store.close()
        return found

    def on_a_loop_of_its_own() -> list[ClaimState | str]:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(reset_in_between())

    first, second, third = await asyncio.to_thread(on_a_loop_of_its_own)
    assert (first, third) == (NEW, NEW)
    assert second in {NEW, "unavailable"}


@asynccontextmanager
async def relayed(target: list[int], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port whose new connections go to the port that `target` holds then: a name, as failovers move it."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", target[0])
        for way in (pump(reader, onward_writer), pump(onward_reader, writer)):
            tasks.add(asyncio.create_task(way))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with listening:
        yield listening.sockets[0].getsockname()[1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_after_a_failover_the_store_goes_where_the_name_leads(
    harness: RedisHarness, server: LocalRedis, alone: RedisHarness
) -> None:
    target = [server.port]
    async with relayed(target) as port:
        store = RedisDedupeStore.at(f"redis://127.0.0.1:{port}", key_prefix=harness.prefix)
        await store.confirm([key("evt_1")])
        await alone.run("REPLICAOF", "127.0.0.1", free_port())
        target[0] = int(harness.url.removesuffix("/0").rpartition(":")[2])
        await refusal(store.claim([key("evt_2")], owner="a"))

        assert await store.claim([key("evt_2")], owner="a") == {key("evt_2"): NEW}
        assert await claim(harness, "evt_2", owner="b") is IN_FLIGHT
        await store.close()


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1, in one file."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - HOUR)
        .not_valid_after(datetime.now(UTC) + HOUR)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "redis.pem"
    file.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """The server's side."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_rediss_is_tls_to_a_server_that_shows_who_it_is(
    harness: RedisHarness, certificate: Path, tls: ssl.SSLContext
) -> None:
    target = [int(harness.url.removesuffix("/0").rpartition(":")[2])]
    async with relayed(target, tls) as port:
        trusting = RedisDedupeStore.at(
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", key_prefix=harness.prefix
        )
        wary = RedisDedupeStore.at(f"rediss://127.0.0.1:{port}/0", key_prefix=harness.prefix)
        misled = RedisDedupeStore.at(
            f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}", key_prefix=harness.prefix
        )

        assert await trusting.claim([key("evt_1")], owner="a") == {key("evt_1"): NEW}
        for refused in (wary, misled):
            await refusal(refused.claim([key("evt_2")], owner="a"))
        assert await claim(harness, "evt_1", owner="b") is IN_FLIGHT
        assert await claim(harness, "evt_2", owner="b") is NEW
        for store in (trusting, wary, misled):
            await store.close()


async def test_closing_does_not_wait_for_the_other_end_of_tls(certificate: Path, tls: ssl.SSLContext) -> None:
    connected: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        await reader.read(1)
        cast(asyncio.Transport, writer.transport).pause_reading()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        store = RedisDedupeStore.at(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}", key_prefix="x")
        asking = asyncio.create_task(store.claim([key("evt_1")], owner="a"))
        await eventually(lambda: connected, what="the store has connected")
        async with asyncio.timeout(5):
            await store.close()
            await asyncio.gather(asking, return_exceptions=True)
        for writer in connected:
            writer.transport.abort()
        assert isinstance(asking.exception(), DedupeUnavailable)


# Forgetting.


@pytest.mark.parametrize(
    ("limit", "policy", "expected"),
    [
        ("100mb", "allkeys-lru", "allkeys-lru"),
        ("100mb", "volatile-ttl", "volatile-ttl"),
        ("100mb", "noeviction", None),
        ("0", "allkeys-lru", None),
    ],
)
async def test_a_server_that_may_throw_marks_away_is_known(
    alone: RedisHarness, limit: str, policy: str, expected: str | None
) -> None:
    await alone.run("CONFIG", "SET", "maxmemory", limit)
    await alone.run("CONFIG", "SET", "maxmemory-policy", policy)

    assert await alone.store.evicting_policy() == expected


async def test_a_receiver_warns_of_a_server_that_may_forget(
    server: LocalRedis, alone: RedisHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap_dedupe, "EVICTION_RETRY_SECONDS", 0.02)
    await alone.run("CONFIG", "SET", "maxmemory", "100mb")
    await alone.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    config = Config(kafka=KafkaConfig(topic_prefix=alone.prefix), dedupe=DedupeConfig(url=Secret(server.url)))
    with capture_logs() as logged:
        async with bootstrap_dedupe.dedupe_store(config) as store:
            await eventually(lambda: logged, what="the receiver has warned")
            assert await store.claim([key("evt_1")], owner="a") == {key("evt_1"): NEW}

    (warning,) = logged
    assert (warning["event"], warning["log_level"]) == ("dedupe.may_forget", "warning")
    assert warning["maxmemory_policy"] == "allkeys-lfu"
    assert await claim(alone, "evt_1", owner="b") is IN_FLIGHT
