"""`up`: the local stack with a configuration of its own, a shop's life played once, and what to do next."""

import asyncio
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from rich.console import Console

from service.bootstrap import kafka as bootstrap_kafka
from service.bootstrap import migrations as bootstrap_migrations
from service.config import Config, EndpointConfig, KafkaSecurityConfig, allowed_networks, load
from service.events import Endpoint, Secret
from service.local.arrivals import arrivals, until_caught_up
from service.local.ports import LOOPBACK
from service.local.show import show_arrivals, show_next_steps, show_report
from service.local.stack import Stack, StackOptions, run_stack
from service.records import Topics
from service.simulator.playing import play_shop

CONFIG_FILE: Final = "stripe-ingest.toml"
SECRET_FILE: Final = "webhook-secret"  # noqa: S105 -- a file's name
TOKEN_FILE: Final = "admin-token"  # noqa: S105 -- a file's name
CATCH_UP_SECONDS: Final = 60.0
CONCURRENCY: Final = 8


@dataclass(frozen=True, slots=True)
class Up:
    """What `up` was asked for. `given` is the user's own configuration: its endpoints are served.

    What the secret store adds to it is not in it: the stack's processes read the store for themselves.
    """

    options: StackOptions
    given: Config
    simulate: bool
    console: Console

    async def run(self) -> None:
        """Run the stack until it is told to stop."""
        await run_stack(self.options, prepare=self._prepare, started=self._started, console=self.console)

    @property
    def _config_path(self) -> Path:
        return self.options.data_dir / CONFIG_FILE

    async def _prepare(self, stack: Stack) -> None:
        """Topics and tables, and the file that all processes of this stack, and its user's commands, read."""
        _write_private(self._config_path, _toml(self._settings(stack)))
        config = load(str(self._config_path), {})
        await bootstrap_kafka.apply_topics(config)
        await asyncio.to_thread(bootstrap_migrations.migrate, config)

    async def _started(self, stack: Stack) -> None:
        config = load(str(self._config_path), {})
        endpoint = config.webhook_endpoints()[0]
        topics = Topics(config.kafka.topic_prefix)
        before = await arrivals(stack.bootstrap_servers, stack.database_url, topics)
        if self.simulate and not any(before.records.values()):
            await self._play(stack, endpoint, topics)
        elif self.simulate:
            self.console.print("The data folder has a life of its own already; here is what is in it.", style="dim")
        now = await arrivals(stack.bootstrap_servers, stack.database_url, topics)
        show_arrivals(self.console, now)
        show_next_steps(
            self.console,
            receiver=stack.receiver,
            admin=stack.admin,
            endpoints=config.webhook_endpoints(),
            config_path=self._config_path,
            data_dir=self.options.data_dir,
            own_secret=not self.given.endpoints,
        )

    async def _play(self, stack: Stack, endpoint: Endpoint, topics: Topics) -> None:
        report = await play_shop(
            stack.receiver + endpoint.path,
            endpoint,
            seed=1,
            now=datetime.now(UTC),
            concurrency=CONCURRENCY,
            console=self.console,
        )
        show_report(self.console, report)
        caught_up = await until_caught_up(
            stack.bootstrap_servers, stack.database_url, topics, timeout_seconds=CATCH_UP_SECONDS
        )
        if not caught_up:
            self.console.print(f"The consumers are still behind after {CATCH_UP_SECONDS:g} s; see their lines above.")

    def _settings(self, stack: Stack) -> Config:
        """The user's own configuration, at this stack's addresses: whatever is not an address holds here as there."""
        receiver_host, _, receiver_port = stack.receiver.removeprefix("http://").rpartition(":")
        admin_host, _, admin_port = stack.admin.removeprefix("http://").rpartition(":")
        given = self.given
        return replace(
            given,
            receiver=replace(
                given.receiver,
                host=receiver_host,
                port=int(receiver_port),
                workers=1,  # the admin ports of more would be the consumers'
                allow_ips=_with_loopback(given.receiver.allow_ips),
            ),
            admin=replace(
                given.admin, host=admin_host, port=int(admin_port), token=self._own(TOKEN_FILE), allowed_hosts=()
            ),
            kafka=replace(
                given.kafka,
                bootstrap_servers=stack.bootstrap_servers,
                security=KafkaSecurityConfig(),
                replication_factor=1,
                min_insync_replicas=1,
            ),
            dedupe=replace(given.dedupe, url=None),
            database=replace(given.database, url=Secret(stack.database_url)),
            # Asked for, a command here reads the account all the same; a local stack does not by itself.
            reconcile=replace(given.reconcile, interval_seconds=0),
            stripe=replace(given.stripe, watch_interval_seconds=0),
            tracing=replace(given.tracing, otlp_endpoint=None),
            secrets=replace(given.secrets, store=str(Path(given.secrets.store).absolute()))
            if given.secrets.store
            else given.secrets,
            endpoints=self._endpoints(),
        )

    def _endpoints(self) -> tuple[EndpointConfig, ...]:
        if self.given.endpoints:
            return self.given.endpoints
        return (EndpointConfig(name="stripe", mode="any", secrets=(self._own(SECRET_FILE, "whsec_"),)),)

    def _own(self, file: str, prefix: str = "") -> Secret:
        """A secret of this data folder's own, made where there is none yet."""
        path = self.options.data_dir / file
        if not path.exists():
            _write_private(path, f"{prefix}{secrets.token_hex(24)}\n")
        return Secret(path.read_text("utf-8").strip())


def _with_loopback(allow_ips: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Nobody but this machine reaches the local stack: without it, a list would refuse everything."""
    if allowed_networks(allow_ips) is None:
        return allow_ips
    return (*(map(str.strip, allow_ips.split(",")) if isinstance(allow_ips, str) else allow_ips), LOOPBACK)


def _plain(value: Any) -> Any:
    """A configuration as TOML has it: tables, lists and values; what is not set is not there."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value).items()
        return {name: _plain(below) for name, below in fields if below is not None}
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    return value.value if isinstance(value, Secret) else value


def _toml(config: Config) -> str:
    """The configuration as a file; strings, numbers, booleans and their lists are written as in JSON."""
    lines = ["# Written by `stripe-ingest up`: the running stack's configuration, for every other command."]
    for section, content in _plain(config).items():
        for table in content if isinstance(content, list) else [content]:
            lines += ["", f"[[{section}]]" if isinstance(content, list) else f"[{section}]"]
            lines += [f"{key} = {_toml_value(value)}" for key, value in _dotted(table)]
    return "\n".join(lines) + "\n"


def _dotted(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values, those of a table within (Kafka's security) under `outer.inner`."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{below}", inner) for below, inner in _dotted(value))
        else:
            yield key, value


def _toml_value(value: Any) -> str:
    # JSON writes what is beyond 16 bits in two halves, and DEL as it is: TOML has neither.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
