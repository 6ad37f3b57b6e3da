"""Composition of the migrations: their drivers are needed by nothing else, and slow to import."""

from collections.abc import Mapping

from sqlalchemy.exc import OperationalError

from service.adapters.migrations import MigrationResult
from service.adapters.migrations import migrate as migrate_database
from service.config import Config
from service.errors import StoreUnavailable


def migrate(config: Config) -> Mapping[str, MigrationResult]:
    """Migrate the database, and the dedupe store's where it is another Postgres."""
    urls = {"database": config.database_url}
    if config.dedupe_url != config.database_url and config.dedupe_url.startswith(("postgresql:", "postgres:")):
        urls["dedupe"] = config.dedupe_url
    try:
        return {store: migrate_database(url) for store, url in urls.items()}
    except OperationalError as error:
        raise StoreUnavailable("the database cannot be reached, or another migration holds it") from error
