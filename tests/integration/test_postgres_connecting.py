"""Databases that answer and are not ours, or not ready for us: whoever gave the address is told so, in a line."""

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import pytest

from service.adapters.postgres_jobs import PostgresJobStore
from service.adapters.postgres_rebuild import PostgresRebuild
from service.errors import ConfigurationError
from service.projections import PROJECTIONS


async def ask_for_a_job(url: str) -> None:
    store = await PostgresJobStore.open(url)
    try:
        await store.begin("job", owner="me", lease_seconds=1)
    finally:
        await store.close()


async def rebuild(url: str) -> None:
    store = await PostgresRebuild.open(url, PROJECTIONS["payments"], consumer_group="group", dry_run=True)
    try:
        await store.totals()
    finally:
        await store.close()


def elsewhere(url: str, *, user: str | None = None, database: str | None = None) -> str:
    parts = urlsplit(url)
    host = parts.netloc if user is None else f"{user}:wrong@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=host, path=parts.path if database is None else f"/{database}"))


@pytest.mark.parametrize("use", [ask_for_a_job, rebuild])
async def test_a_database_that_is_not_ours_is_a_matter_of_the_configuration(
    empty_database_url: str, use: Callable[[str], Awaitable[None]]
) -> None:
    for url, said in {
        empty_database_url: "stripe-ingest migrate",
        elsewhere(empty_database_url, database="nobodys"): "no database of this name",
        elsewhere(empty_database_url, user="nobody"): "does not let this user in",
    }.items():
        with pytest.raises(ConfigurationError, match=f"^database.url: .*{said}") as refused:
            await use(url)
        assert "nobody" not in str(refused.value)
        assert "wrong" not in str(refused.value)
        assert refused.value.__suppress_context__
