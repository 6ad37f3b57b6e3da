"""What a `redis://` URL may be, and what is said where it, or its driver, is wrong. No server."""

import sys

import pytest

from service.adapters.dedupe_redis import RedisDedupeStore
from service.adapters.migrations import MigrationResult
from service.bootstrap import dedupe as bootstrap_dedupe
from service.bootstrap import migrations as bootstrap_migrations
from service.config import Config, DatabaseConfig, DedupeConfig, load
from service.errors import ConfigurationError
from service.events import Secret

WORD = "hunter2"


def configured(url: str) -> Config:
    return Config(dedupe=DedupeConfig(url=Secret(url)), database=DatabaseConfig(url=Secret("postgresql://h/d")))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", ("h", 6379, None, None, 0)),
        ("redis://h/", ("h", 6379, None, None, 0)),
        ("redis://h:7000/3", ("h", 7000, None, None, 3)),
        ("rediss://[::1]:7000/3", ("::1", 7000, None, None, 3)),
        ("redis://:p%40s%2Fs%23@h", ("h", 6379, None, "p@s/s#", 0)),
        ("redis://us%3Aer:pass@h/0", ("h", 6379, "us:er", "pass", 0)),
    ],
)
def test_a_url_names_server_user_and_database(url: str, expected: tuple[object, ...]) -> None:
    told = RedisDedupeStore.at(url, key_prefix="x")._pool.connection_kwargs

    assert tuple(told[name] for name in ("host", "port", "username", "password", "db")) == expected


def test_the_password_is_in_no_repr() -> None:
    store = RedisDedupeStore.at(f"redis://:{WORD}@h", key_prefix="x")

    assert WORD not in f"{store!r} {configured(f'redis://:{WORD}@h')!r}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://", "must be redis://"),
        ("redis:///0", "must be redis://"),
        (f"redis://:{WORD}@", "must be redis://"),
        (f"redis://h/{WORD}", "must be redis://"),
        ("redis://h/0/1", "must be redis://"),
        ("redis://h/-1", "must be redis://"),
        ("redis://h/٣", "must be redis://"),
        (f"redis://user:12#{WORD}@h/0", "must be redis://"),
        (f"redis://user:12/{WORD}@h/0", "must be redis://"),
        (f"redis://user:12?{WORD}@h/0", "has an option that is none"),
        (f"redis://h/0?password={WORD}", "has an option that is none"),
        (f"rediss://h/0?ssl_cert_reqs={WORD}", "has an option that is none; allowed, with rediss:// only, are ssl_ca"),
        (f"redis://h/0?ssl_ca_certs={WORD}", "has an option that is none"),
        (f"redis://{WORD}@h/0", "has a user and no password"),
        (f"rediss://h/0?ssl_ca_certs=/{WORD}", "cannot be used (No such file or directory)"),
        (f"rediss://h/0?ssl_certfile=/{WORD}", "cannot be used (No such file or directory)"),
        ("rediss://h/0?ssl_keyfile=/dev/null", "cannot be used"),
        ("rediss://h/0?ssl_ca_certs=/dev/null", "cannot be used"),
    ],
)
def test_a_url_that_is_wrong_is_refused_without_being_shown(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        bootstrap_dedupe.check_dedupe(configured(url))

    message = str(refused.value)
    assert message.startswith("dedupe.url: ")
    assert said in message
    assert WORD not in message


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "memory://", "postgresql://h/d", "postgres://h/d"])
def test_every_kind_of_store_is_accepted(url: str) -> None:
    config = load(None, {"STRIPE_INGEST__DEDUPE__URL": url, "STRIPE_INGEST__RECEIVER__HOST": "h"})

    bootstrap_dedupe.check_dedupe(config)


@pytest.mark.parametrize("url", ["redis", "redis:h", "redis+sentinel://h", "unix:///run/redis.sock", "valkey://h"])
def test_other_kinds_are_refused_with_those_that_there_are(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(None, {"STRIPE_INGEST__DEDUPE__URL": url})

    allowed = "postgresql:// or postgres:// or redis:// or rediss:// or memory://"
    assert str(refused.value) == f"dedupe.url: must begin with {allowed}"


def test_workers_may_share_a_redis() -> None:
    config = load(None, {"STRIPE_INGEST__DEDUPE__URL": "redis://h", "STRIPE_INGEST__RECEIVER__WORKERS": "4"})

    assert config.receiver.workers == 4


@pytest.mark.parametrize("missing", ["redis", "hiredis"])
def test_a_driver_that_is_not_installed_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [*sys.modules]:
        if name == "service.adapters.dedupe_redis" or name.startswith(f"{missing}."):
            monkeypatch.delitem(sys.modules, name)
    # None is how Python is told that a module is not there.
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ConfigurationError) as refused:
        bootstrap_dedupe.check_dedupe(configured("redis://h"))

    assert 'pip install "stripe-ingest[redis]"' in str(refused.value)
    bootstrap_dedupe.check_dedupe(configured("memory://"))


def test_there_is_nothing_to_migrate_in_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    migrated: list[str] = []

    def migrate(url: str) -> MigrationResult:
        migrated.append(url)
        return MigrationResult(before=None, after="1", applied=())

    monkeypatch.setattr(bootstrap_migrations, "migrate_database", migrate)

    assert list(bootstrap_migrations.migrate(configured("redis://h"))) == ["database"]
    assert migrated == ["postgresql://h/d"]
    assert list(bootstrap_migrations.migrate(configured("postgresql://other/d"))) == ["database", "dedupe"]
