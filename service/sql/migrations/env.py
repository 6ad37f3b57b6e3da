"""Alembic's way in: it runs on the connection, and in the transaction, that `service.adapters.migrations` gives it."""

from alembic import context

attributes = context.config.attributes
context.configure(connection=attributes["connection"], version_table=attributes["version_table"])
context.run_migrations()
