"""What commands have in common: their configuration, their event loop, and what they print on."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table

from service.config import Config, checked_topic_prefix, load, load_given, load_topic_prefix
from service.records import Topics
from service.telemetry.logging import configure

T = TypeVar("T")
Command = Callable[..., Any]

WIDTH_WITHOUT_TERMINAL: Final = 110

_config_option: Final = click.option(
    "--config", "config_path", metavar="FILE", help="The TOML file; else STRIPE_INGEST_CONFIG."
)


def with_config(command: Command) -> Command:
    """Add `--config` and hand the command the configuration."""

    @_config_option
    @functools.wraps(command)
    def run(config_path: str | None, **options: Any) -> Any:
        return _configured(command, load(config_path, os.environ), options)

    return run


def with_loaded_config(command: Command) -> Command:
    """Add `--config` and hand the command the configuration, and `load`, which reads it anew while it runs."""

    @_config_option
    @functools.wraps(command)
    def run(config_path: str | None, **options: Any) -> Any:
        def again() -> Config:
            return load(config_path, os.environ)

        return _configured(command, again(), {**options, "load": again})

    return run


def with_given_config(command: Command) -> Command:
    """Add `--config` and hand the command the configuration without what the secret store adds to it."""

    @_config_option
    @functools.wraps(command)
    def run(config_path: str | None, **options: Any) -> Any:
        return _configured(command, load_given(config_path, os.environ), options)

    return run


def _configured(command: Command, config: Config, options: Mapping[str, Any]) -> Any:
    configure(config.logging.format, config.logging.level)
    return command(config, **options)


def with_topics(command: Command) -> Command:
    """Add `--config` and `--prefix` and hand the command the topics, which is all that it needs of a configuration."""

    @_config_option
    @click.option("--prefix", metavar="PREFIX", help="The topics' prefix; else the configuration's.")
    @functools.wraps(command)
    def run(config_path: str | None, prefix: str | None, **options: Any) -> Any:
        known = load_topic_prefix(config_path, os.environ) if prefix is None else checked_topic_prefix(prefix)
        return command(Topics(known), **options)

    return run


def run_async(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine on uvloop where there is one."""

    async def started() -> T:
        return await main()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(started())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 -- optional: not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def figures_table(names: Sequence[str], figures: Sequence[str]) -> Table:
    """A table of columns with names, then columns with figures."""
    table = Table(box=None, header_style="bold")
    for name in names:
        table.add_column(name)
    for figure in figures:
        table.add_column(figure, justify="right")
    return table


@contextmanager
def going_on_later() -> Iterator[None]:
    """Say on Ctrl-C that nothing of what was done is lost."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted. What was done is kept: run it again, and it goes on from there.", err=True)
        raise


def new_console() -> Console:
    """Standard output; where it is no terminal, wide enough for whole ids."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)
