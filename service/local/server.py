"""One server as a child process: start, stop, and the ways a test may hurt it."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from service.local import tether
from service.local.errors import DataFolderInUse, DiskFull, LocalStackError, PortTaken
from service.local.ports import free_port, is_free

MIN_FREE_BYTES: Final = 500_000_000
"""Below this much free disk nothing is started: Kafka and Postgres both stop badly on a full disk."""

_LOG_TAIL_LINES: Final = 15
_POLL_SECONDS: Final = 0.05
_LOCK_WAIT_SECONDS: Final = 5.0


def tethered(
    command: Sequence[str | Path], *, death_signal: signal.Signals = signal.SIGKILL, uid: int | None = None
) -> list[str]:
    """The command line that runs `command` so that it gets `death_signal` when the thread that started it dies."""
    launcher = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(int(death_signal))]
    return [*launcher, "-" if uid is None else str(uid), *map(str, command)]


def require_disk_space(folder: Path) -> None:
    """Raise `DiskFull` when the folder's file system is nearly full."""
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        msg = (
            f"only {free // 1_000_000} MB are free where {folder} is; the local stack needs "
            f"{MIN_FREE_BYTES // 1_000_000} MB: free some, or give another folder with --data"
        )
        raise DiskFull(msg)


class LocalServer(ABC):
    """A server on 127.0.0.1 that keeps its data in one folder and dies with the process that started it.

    The port is chosen once, so a stopped or killed server comes back where its clients look for it. Start it from the
    main thread: it is tied to the thread that starts it.
    """

    part: ClassVar[str]
    """What to call it in messages and file names."""

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    kill_signal: ClassVar[signal.Signals] = signal.SIGKILL
    start_timeout_seconds: ClassVar[float] = 90.0
    stop_timeout_seconds: ClassVar[float] = 15.0

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder ready; it exists and is locked. May take seconds: it runs in a thread."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """The command line of the server."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether the server does its work now. An error in the connection means no."""

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _uid(self) -> int | None:
        return None

    @property
    def log_path(self) -> Path:
        """Where the server's own output goes."""
        return self.data_dir / f"{self.part}.log"

    @property
    def pid(self) -> int | None:
        """The server's process id; None unless it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the process is there and not paused."""
        return self.pid is not None and not self._paused

    async def start(self) -> None:
        """Start the server and return once it answers. Starting one that runs does nothing.

        Raises `DataFolderInUse`, `PortTaken`, `DiskFull`, `PartMissing`, and `LocalStackError` with the end of the
        server's log when it ends or does not answer within `start_timeout_seconds`.
        """
        if self.pid is not None:
            self.resume()
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        require_disk_space(self.data_dir)
        lock = await self._lock()
        try:
            if not is_free(self.port):
                raise PortTaken(self.port, self.part, "choose another one")
            await asyncio.to_thread(self._prepare)
            with self.log_path.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own command; spawning takes a millisecond
                    tethered(self._command(), death_signal=self.kill_signal, uid=self._uid()),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(self._environment()),
                    # Out of reach of the terminal's Ctrl-C: whoever started it stops it, in order.
                    process_group=0,
                    # The server holds the lock from now on, for as long as any process of it lives.
                    pass_fds=(lock,),
                )
        finally:
            os.close(lock)
        await self._until_it_answers(self._process)

    async def stop(self) -> None:
        """Stop the server, by force when it takes longer than `stop_timeout_seconds`. Its data stays."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            # A paused process takes no signal but SIGKILL until it goes on.
            self.resume()
            if not await _ended(process, self.stop_timeout_seconds):
                process.kill()
                await asyncio.to_thread(process.wait)
        self._process = None

    def kill(self) -> None:
        """End the server at once, as a crash would; a test's tool. Returns when the process is gone."""
        if self._process is None:
            return
        self._process.send_signal(self.kill_signal)
        self.resume()
        try:
            self._process.wait(self.stop_timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Freeze the server: its sockets stay open and nothing answers, as in a long pause or behind a dead link."""
        if (pid := self.pid) is not None:
            _signal_tree(pid, signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        """Let a paused server go on."""
        if self._paused and (pid := self.pid) is not None:
            _signal_tree(pid, signal.SIGCONT)
        self._paused = False

    def _run_tool(self, what: str, command: Sequence[str | Path]) -> None:
        """Run one of the server's own programs to its end, as the server's user; `what` it does, for the error."""
        try:
            subprocess.run(  # noqa: S603 - our own command
                tethered(command, uid=self._uid()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=self.start_timeout_seconds,
                check=True,
            )
        except subprocess.TimeoutExpired:
            msg = f"{self.part} could not {what} in {self.data_dir} within {self.start_timeout_seconds:.0f} s"
            raise LocalStackError(msg) from None
        except subprocess.CalledProcessError as error:
            msg = f"{self.part} could not {what} in {self.data_dir}:\n{error.stdout}"
            raise LocalStackError(msg) from None

    async def _lock(self) -> int:
        """A descriptor that holds the data folder's lock, inherited by the server."""
        descriptor = os.open(self.data_dir / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = asyncio.get_running_loop().time() + _LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # A killed server's last processes may still be on their way out.
                if asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(_POLL_SECONDS)
                    continue
                os.close(descriptor)
                msg = f"{self.part} already runs on the data folder {self.data_dir}: stop it, or give another folder"
                raise DataFolderInUse(msg) from None
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    async def _until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        try:
            async with asyncio.timeout(self.start_timeout_seconds):
                while not await self._answers():
                    if process.poll() is not None:
                        raise LocalStackError(self._failure(f"ended with code {process.returncode}"))
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            self.kill()
            msg = self._failure(f"did not answer within {self.start_timeout_seconds:.0f} s")
            raise LocalStackError(msg) from None
        except BaseException:
            self.kill()
            raise

    def _failure(self, what: str) -> str:
        try:
            with self.log_path.open(encoding="utf-8", errors="replace") as log:
                tail = "".join(deque(log, maxlen=_LOG_TAIL_LINES)).rstrip()
        except OSError:
            tail = ""
        return f"{self.part} {what}; its log, {self.log_path}, ends with:\n{tail}"


def _signal_tree(pid: int, number: signal.Signals) -> None:
    """Signal a process and those it has started: Postgres answers from processes of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for each in [pid, *map(int, children.read_text(encoding="ascii").split())]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


async def _ended(process: subprocess.Popen[bytes], timeout_seconds: float) -> bool:
    try:
        await asyncio.to_thread(process.wait, timeout_seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
