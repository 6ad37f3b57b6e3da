"""Fixtures for everyone: real servers, and what makes a test run honest."""

import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from tests.support.corpus import CORPUS
from tests.support.fake_stripe import NO_STRIPE_MOCK, stripe_mock_possible
from tests.support.java_cache import use_java_cache
from tests.support.stack import (
    EMPTY_TEMPLATE,
    MIGRATED_TEMPLATE,
    POSTGRES_TEST_SETTINGS,
    LocalKafka,
    LocalPostgres,
    LocalRedis,
    database,
    make_template,
    running,
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it runs in the background ignore Ctrl-C; commands that are tested would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SERVER_FIXTURES = ("kafka", "postgres", "redis")
_UNIT_TESTS = Path(__file__).parent / "unit"


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers of a test run keep their data."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
async def java_cache() -> None:
    """Every broker that is started from here on starts in half the time."""
    await use_java_cache()


@pytest.fixture(scope="session")
async def kafka(server_folder: Path, java_cache: None) -> AsyncIterator[LocalKafka]:  # noqa: ARG001 -- it is used
    """A real broker: `bootstrap_servers`; `kill`, `pause`, `resume`, `await start()`, `await stop()`."""
    async with running(LocalKafka(server_folder / "kafka")) as server:
        yield server


@pytest.fixture(scope="session")
async def postgres(server_folder: Path) -> AsyncIterator[LocalPostgres]:
    """A real PostgreSQL: `url`; may be hurt like `kafka`. Most tests want `database_url`."""
    async with running(LocalPostgres(server_folder / "postgres", settings=POSTGRES_TEST_SETTINGS)) as server:
        yield server


@pytest.fixture(scope="session")
async def redis(server_folder: Path) -> AsyncIterator[LocalRedis]:
    """A real Redis: `url`; may be hurt like `kafka`. Its keys are shared by all tests of the session."""
    async with running(LocalRedis(server_folder / "redis")) as server:
        yield server


@pytest.fixture
def topic_prefix() -> str:
    """A topic prefix of this test's own; consumer groups are named after it."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture(scope="session")
async def migrated_postgres(postgres: LocalPostgres) -> LocalPostgres:
    """The session's PostgreSQL, with the template that `database_url` copies."""
    await make_template(postgres)
    return postgres


@pytest.fixture
async def database_url(migrated_postgres: LocalPostgres) -> AsyncIterator[str]:
    """A database of this test's own with all migrations applied."""
    async with database(migrated_postgres, MIGRATED_TEMPLATE) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres: LocalPostgres) -> AsyncIterator[str]:
    """A database of this test's own without any schema."""
    async with database(postgres, EMPTY_TEMPLATE) as url:
        yield url


@pytest.fixture
async def servers_left_running(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Whatever a test does to the session's servers, the next test finds them running."""
    yield
    for name in _SERVER_FIXTURES:
        if name in request.fixturenames:
            await request.getfixturevalue(name).start()


@pytest.fixture
def nothing_blocks_the_loop() -> Iterator[None]:
    """Our own code fails when it blocks a running event loop: one slow call stops every delivery of the process."""
    with blockbuster_ctx(scanned_modules=["service"]):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the fixtures that a test's kind needs to those tests, and to no others.

    `servers_left_running` is added last, so it ends first: the test's other fixtures clean up on servers that answer.
    """
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if _UNIT_TESTS in item.path.parents:
            names.append("nothing_blocks_the_loop")
        if not set(names).isdisjoint(_SERVER_FIXTURES):
            names.append("servers_left_running")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so when the real-world payloads or stripe-mock are not there: those tests then show nothing."""
    if not CORPUS.is_dir():
        terminalreporter.write_line(f"corpus tests were not run: there are no payloads in {CORPUS}", yellow=True)
    if not stripe_mock_possible():
        terminalreporter.write_line(NO_STRIPE_MOCK, yellow=True)
