"""Keeps child processes running: one merged output, restarts with back-off, an ordered and bounded stop."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeAlias, TypeVar

import aiohttp

from service.local.errors import ChildMisconfigured, LocalStackError
from service.local.server import tethered

FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 30.0
"""A child that ran this long before it crashed starts again without the delays of earlier crashes."""

STOP_TIMEOUT_SECONDS: Final = 20.0
READY_TIMEOUT_SECONDS: Final = 60.0

_EXIT_CONFIGURATION: Final = 2
_MAX_LINE_BYTES: Final = 65_536
_DRAIN_SECONDS: Final = 1.0
_PROBE_TIMEOUT_SECONDS: Final = 2.0
_PROBE_PAUSE_SECONDS: Final = 0.1
_MAX_PROBE_BYTES: Final = 2_000

T = TypeVar("T")

Write: TypeAlias = Callable[[str, str], None]
"""Shows one line of a child: `(name of the child, line)`. Lines about a child come under its name, too."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running. `environment` is all of it; `ready_url` answers 200 once the child does its work."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready_url: str


class Supervisor:
    """Runs children in stages: inside `async with` all run; at its end the stages stop one after the other.

    A child that ends is started again, after longer and longer delays; only one that ends with exit code 2 (bad
    usage or configuration: no restart will mend that) ends the whole, as `ChildMisconfigured` from `failed`.
    """

    def __init__(self, stages: Sequence[Sequence[Child]], *, write: Write) -> None:
        self._stages = [[_Keeper(child, write) for child in stage] for stage in stages]

    async def __aenter__(self) -> Self:
        for keeper in self._keepers:
            keeper.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for stage in self._stages:
                await asyncio.gather(*(keeper.stop() for keeper in stage))
        finally:
            self.kill()

    @property
    def _keepers(self) -> list["_Keeper"]:
        return [keeper for stage in self._stages for keeper in stage]

    async def failed(self) -> NoReturn:
        """Return never; raise what makes going on pointless."""
        await asyncio.gather(*(keeper.kept() for keeper in self._keepers))
        raise AssertionError("a child is no longer kept though nothing has failed")

    async def ready(self, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
        """Return once every child says that it is ready; raise `LocalStackError` naming those that do not in time."""
        answers: dict[str, str] = {}
        answering = (_until_ready(keeper.child, answers) for keeper in self._keepers)
        async with _ending_with(together(*answering)) as everyone, _ending_with(self.failed()) as failed:
            await asyncio.wait((everyone, failed), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            if not everyone.done():
                missing = "; ".join(f"{name} ({answer})" for name, answer in sorted(answers.items()))
                msg = f"not ready within {timeout_seconds:g} s: {missing}"
                raise LocalStackError(msg)
            everyone.result()

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a child a signal, where it runs."""
        for keeper in self._keepers:
            if keeper.child.name == name:
                keeper.send(number)

    def kill(self) -> None:
        """End all children at once: the last resort, and what a second Ctrl-C asks for."""
        for keeper in self._keepers:
            keeper.kill()


async def together(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run all; the first that fails ends the others, and its own error comes out."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


@asynccontextmanager
async def _ending_with(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Work that goes on at most as long as the block; it is over when the block is left."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _until_ready(child: Child, answers: dict[str, str]) -> None:
    timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            answers[child.name] = await _problem(session, child.ready_url)
            if not answers[child.name]:
                del answers[child.name]
                return
            await asyncio.sleep(_PROBE_PAUSE_SECONDS)


async def _problem(session: aiohttp.ClientSession, url: str) -> str:
    """Why the URL does not answer 200; empty when it does."""
    try:
        async with session.get(url) as response:
            body = await response.content.read(_MAX_PROBE_BYTES)
            return "" if response.status == 200 else body.decode(errors="replace")
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        return f"no answer: {type(error).__name__}"


class _Keeper:
    """One child's life: run, relay its output, start it again."""

    def __init__(self, child: Child, write: Write) -> None:
        self.child = child
        self._write = write
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.child.name}")

    async def kept(self) -> None:
        """Return when the child is not kept any more; raise what ended it. Cancelling the caller ends only the wait."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Ask the child to end, insist after `STOP_TIMEOUT_SECONDS`, and see it gone."""
        self._stopping = True
        if self._task is None:
            return
        if self._process is None or self._process.returncode is not None:
            self._task.cancel()
        else:
            self.send(signal.SIGTERM)
        _, late = await asyncio.wait((self._task,), timeout=STOP_TIMEOUT_SECONDS)
        if late:
            self._write(self.child.name, f"did not end within {STOP_TIMEOUT_SECONDS:g} s: killed")
            self.kill()
            await asyncio.wait((self._task,), timeout=STOP_TIMEOUT_SECONDS)
        if self._task.done() and not self._task.cancelled():
            self._task.exception()  # whoever awaits `failed` has it; nobody may

    def kill(self) -> None:
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            # The whole group: a receiver may have workers of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY_SECONDS
        while True:
            started = loop.time()
            code = await self._run()
            if self._stopping:
                return
            if code == _EXIT_CONFIGURATION:
                raise ChildMisconfigured(self.child.name)
            if loop.time() - started >= STEADY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self._write(self.child.name, f"{_ending(code)}; starts again in {delay:g} s")
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY_SECONDS)

    async def _run(self) -> int:
        process = await asyncio.create_subprocess_exec(
            *tethered(self.child.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self.child.environment),
            limit=_MAX_LINE_BYTES,
            # Out of reach of the terminal's Ctrl-C: the stages stop in order.
            start_new_session=True,
        )
        self._process = process
        if self._stopping:
            self.send(signal.SIGTERM)
        assert process.stdout is not None  # noqa: S101 - asked for above
        relay = asyncio.create_task(self._relay(process.stdout))
        code = await process.wait()
        # A grandchild may hold the pipe open for ever.
        _, late = await asyncio.wait((relay,), timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        return code

    async def _relay(self, stream: asyncio.StreamReader) -> None:
        async for line in _lines(stream):
            self._write(self.child.name, line)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The stream's lines without their ends; a line longer than the limit comes in pieces."""
    rest = b""
    while chunk := await stream.read(_MAX_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
