"""`make psql`: the psql of the Postgres wheel, on the running stack's database."""

import json
import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.local.postgres import programs


def main(data_dir: str, statement: str) -> None:
    """Replace this process by psql."""
    try:
        addresses = json.loads((Path(data_dir) / "stack.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"nothing runs on {data_dir}: make run starts it")
    psql = programs() / "psql"
    # By the environment: a password must not stand in the list of processes.
    arguments = [str(psql), *(["--command", statement] if statement else [])]
    os.execve(psql, arguments, os.environ | _connection(addresses["database_url"]))  # noqa: S606 -- our own program


def _connection(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
