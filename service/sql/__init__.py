"""The database's schema: plain SQL files, put in order and applied by Alembic."""
