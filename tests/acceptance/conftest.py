"""A deployment of each test's own, on the session's servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.local.kafka import LocalKafka
from service.local.postgres import LocalPostgres
from tests.support.deployment import Deployment, deployment
from tests.support.integrations import Installer
from tests.support.stack import MIGRATED_TEMPLATE, database


@pytest.fixture
async def deployed(kafka: LocalKafka, database_url: str, topic_prefix: str) -> Deployment:
    """Topics and tables are there; nothing runs yet."""
    return await deployment(kafka.bootstrap_servers, database_url, topic_prefix)


@pytest.fixture
async def another_database_url(migrated_postgres: LocalPostgres) -> AsyncIterator[str]:
    """A second database, for a second deployment."""
    async with database(migrated_postgres, MIGRATED_TEMPLATE) as url:
        yield url


@pytest.fixture
def installer(kafka: LocalKafka, database_url: str, topic_prefix: str, tmp_path: Path) -> Installer:
    """Installs a preset in a folder of the test's own, on its own topics and tables."""
    return Installer(tmp_path, kafka.bootstrap_servers, database_url, topic_prefix)
