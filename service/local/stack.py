"""`up`: Kafka, Postgres, the receiver and the consumers on this machine, started and stopped in order."""

import asyncio
import fcntl
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from service.hangup import hangups
from service.local.errors import DataFolderInUse, PortTaken
from service.local.kafka import LocalKafka
from service.local.ports import LOOPBACK, free_port, is_free
from service.local.postgres import LocalPostgres
from service.local.server import LocalServer, require_disk_space
from service.local.supervisor import Child, Supervisor, together
from service.projections import PROJECTIONS

KAFKA_PORT: Final = 9092
POSTGRES_PORT: Final = 5432
ADDRESSES_FILE: Final = "stack.json"

_SERVER_CHECK_SECONDS: Final = 0.5
_COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta")


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What `up` was asked for. `port` 0 means free ports for everything, else it is the receiver's."""

    data_dir: Path = Path(".stripe-ingest")
    config_path: Path | None = None
    port: int = 8080
    admin_port: int = 9090
    projections: Sequence[str] = tuple(PROJECTIONS)


@dataclass(frozen=True, slots=True)
class Stack:
    """Where everything is."""

    receiver: str
    admin: str
    bootstrap_servers: str
    database_url: str = field(repr=False)
    settings: Mapping[str, str] = field(repr=False)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The environment that points a process of ours at this stack: nobody else's settings come with it."""
        kept = {name: value for name, value in inherited.items() if not name.startswith("STRIPE_INGEST__")}
        return kept | dict(self.settings)

    def addresses(self) -> dict[str, str]:
        """What stands in `stack.json`."""
        return {
            "receiver": self.receiver,
            "admin": self.admin,
            "bootstrap_servers": self.bootstrap_servers,
            "database_url": self.database_url,
        }


Hook: TypeAlias = Callable[[Stack], Coroutine[Any, Any, None]]
"""What the caller adds to a start: `prepare` makes topics and tables, when Kafka and Postgres answer and nothing else
runs; `started` runs beside everything else, once all of it answers and `stack.json` is there.
"""


async def run_stack(options: StackOptions, *, prepare: Hook, started: Hook, console: Console | None = None) -> None:
    """Run everything until SIGINT or SIGTERM, then stop it in order and return; a second signal ends all at once.

    SIGHUP goes on to the receiver, which takes new endpoints and secrets; of a closed terminal it ends everything.

    Call it on the main thread. Raises `LocalStackError` (its `exit_code` says which kind) when a part cannot be
    started, and whatever a hook raises; everything is stopped by then.
    """
    run = _Run(options, prepare, started, console or Console(stderr=True))
    work = asyncio.ensure_future(run.run())
    with _signals(first=work.cancel, second=run.kill, again=run.reload) as stopped:
        try:
            await work
        except asyncio.CancelledError:
            if not stopped():
                raise


@contextmanager
def _signals(
    *, first: Callable[[], object], second: Callable[[], object], again: Callable[[], object]
) -> Iterator[Callable[[], bool]]:
    """Call `first` for the first SIGINT or SIGTERM, `second` for any later one; say whether there was one.

    For a SIGHUP call `again`; that of a closed terminal is a first one, however many of it come.
    """
    received: list[signal.Signals] = []

    def handle(number: signal.Signals) -> None:
        received.append(number)
        (first if len(received) == 1 else second)()

    def end() -> None:
        if not received:
            handle(signal.SIGHUP)

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        with hangups(again=again, end=end):
            yield lambda: bool(received)
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class _Run:
    """One `up`."""

    def __init__(self, options: StackOptions, prepare: Hook, started: Hook, console: Console) -> None:
        self._options = options
        self._prepare = prepare
        self._started = started
        self._console = console
        self._servers: tuple[LocalServer, ...] = ()
        self._supervisor: Supervisor | None = None
        names = ("receiver", *options.projections, "kafka", "postgres")
        self._colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}

    async def run(self) -> None:
        data_dir = self._options.data_dir.absolute()
        with locked(data_dir):
            require_disk_space(data_dir)
            ports = choose_ports(self._options)
            kafka = LocalKafka(data_dir / "kafka", ports["kafka"])
            postgres = LocalPostgres(data_dir / "postgres", ports["postgres"])
            self._servers = (kafka, postgres)
            # Left in the opposite order: receiver, consumers, and only then what they need.
            async with AsyncExitStack() as exits:
                for server in self._servers:
                    exits.push_async_callback(server.stop)
                with _Steps(self._console) as steps:
                    await together(
                        steps.step(_kafka_step(data_dir), kafka.start()), steps.step("Postgres", postgres.start())
                    )
                    stack = _describe(kafka, postgres, ports)
                    await steps.step("topics and tables", self._prepare(stack))
                    self._supervisor = Supervisor(self._stages(stack, ports), write=self._write)
                    await exits.enter_async_context(self._supervisor)
                    await steps.step("receiver and consumers", self._supervisor.ready())
                exits.enter_context(_published(stack, data_dir / ADDRESSES_FILE))
                keepers = (self._keep(server) for server in self._servers)
                await together(self._started(stack), self._supervisor.failed(), *keepers)

    def reload(self) -> None:
        """Have the receiver read its configuration again; one that does not run yet will read it anyway."""
        if self._supervisor is not None:
            self._supervisor.send("receiver", signal.SIGHUP)

    def kill(self) -> None:
        """End every process now; the stop that is under way then has nothing left to wait for."""
        if self._supervisor is not None:
            self._supervisor.kill()
        for server in self._servers:
            server.kill()

    async def _keep(self, server: LocalServer) -> None:
        """Start a server again when it has gone; one that does not come back ends the stack with its reason."""
        while True:
            await asyncio.sleep(_SERVER_CHECK_SECONDS)
            if server.pid is None:
                self._write(server.part, f"has ended; starts again; its log is {server.log_path}")
                await server.start()

    def _stages(self, stack: Stack, ports: Mapping[str, int]) -> list[list[Child]]:
        """The receiver stops first: what it has accepted still finds consumers that run."""
        receiver = self._child("receiver", ["receive"], stack, ports)
        consumers = [self._child(name, ["consume", name], stack, ports) for name in self._options.projections]
        return [[receiver], consumers]

    def _child(self, name: str, arguments: Sequence[str], stack: Stack, ports: Mapping[str, int]) -> Child:
        config = [] if self._options.config_path is None else ["--config", str(self._options.config_path)]
        admin_port = ports[f"{name} admin"]
        return Child(
            name,
            [sys.executable, "-m", "service", *arguments, *config],
            {
                **stack.environment(os.environ),
                "STRIPE_INGEST__ADMIN__PORT": str(admin_port),
                "PYTHONUNBUFFERED": "1",
            },
            f"http://{LOOPBACK}:{admin_port}/readyz",
        )

    def _write(self, name: str, line: str) -> None:
        width = max(map(len, self._colours))
        prefix = (f"{name:<{width}} │ ", self._colours.get(name, ""))
        self._console.print(Text.assemble(prefix, line), soft_wrap=True, highlight=False)


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """The data folder, ours alone. It holds passwords: nobody else may look in, and git is not to pick it up."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    data_dir.chmod(0o700)  # one that was there before may have been open to others
    (data_dir / ".gitignore").write_text("*\n", encoding="ascii")
    descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another `stripe-ingest up` runs on {data_dir}: stop it, or give another folder with --data"
            raise DataFolderInUse(msg) from None
        # Left behind by one that was killed: whoever waits for the file must not find those addresses.
        (data_dir / ADDRESSES_FILE).unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def choose_ports(options: StackOptions) -> dict[str, int]:
    """A port for each listener, all different. The receiver's two are a promise; the others move where one is taken."""
    consumers = [f"{name} admin" for name in options.projections]
    if options.port == 0:
        return _distinct({}, dict.fromkeys(("receiver", "receiver admin", "kafka", "postgres", *consumers)))
    for port, part, option in (
        (options.port, "the receiver", "--port"),
        (options.admin_port, "the receiver's admin side", "--admin-port"),
    ):
        if not is_free(port):
            raise PortTaken(port, part, f"give another one with {option}")
    wishes = {"kafka": KAFKA_PORT, "postgres": POSTGRES_PORT}
    wishes |= {name: options.admin_port + number for number, name in enumerate(consumers, start=1)}
    return _distinct({"receiver": options.port, "receiver admin": options.admin_port}, wishes)


def _distinct(fixed: Mapping[str, int], wishes: Mapping[str, int | None]) -> dict[str, int]:
    """The fixed ports, and each wish where it can be had: free, and nobody else's among these."""
    ports = dict(fixed)
    for name, wish in wishes.items():
        port = wish if wish is not None and wish not in ports.values() and is_free(wish) else free_port()
        while port in ports.values():
            port = free_port()
        ports[name] = port
    return ports


def _describe(kafka: LocalKafka, postgres: LocalPostgres, ports: Mapping[str, int]) -> Stack:
    return Stack(
        receiver=f"http://{LOOPBACK}:{ports['receiver']}",
        admin=f"http://{LOOPBACK}:{ports['receiver admin']}",
        bootstrap_servers=kafka.bootstrap_servers,
        database_url=postgres.url,
        # A configuration written for production must not lead a process of this stack there.
        settings={
            "STRIPE_INGEST__RECEIVER__HOST": LOOPBACK,
            "STRIPE_INGEST__RECEIVER__PORT": str(ports["receiver"]),
            "STRIPE_INGEST__ADMIN__HOST": LOOPBACK,
            "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "STRIPE_INGEST__KAFKA__SECURITY__PROTOCOL": "PLAINTEXT",
            "STRIPE_INGEST__KAFKA__REPLICATION_FACTOR": "1",
            "STRIPE_INGEST__KAFKA__MIN_INSYNC_REPLICAS": "1",
            "STRIPE_INGEST__DATABASE__URL": postgres.url,
            "STRIPE_INGEST__DEDUPE__URL": postgres.url,
            "STRIPE_INGEST__LOGGING__FORMAT": "console",
        },
    )


@contextmanager
def _published(stack: Stack, path: Path) -> Iterator[None]:
    """The addresses in a file, whole or not at all, while the stack runs. It holds a password."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(stack.addresses(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    Path(temporary).replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _kafka_step(data_dir: Path) -> str:
    known = (data_dir / "kafka").exists()
    return "Kafka" if known else "Kafka (its first start on a machine fetches 120 MB)"


class _Steps:
    """What is being started: spinners with the time on a terminal, a line per finished step elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> "_Steps":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    async def step(self, name: str, work: Awaitable[None]) -> None:
        """Show the work until it is done."""
        shown = self._progress.add_task(name, total=1)
        began = time.monotonic()
        await work
        self._progress.update(shown, completed=1)
        if not self._console.is_terminal:
            self._console.print(f"{name}: ready after {time.monotonic() - began:.1f} s", highlight=False)
