"""The list of commands: complete, as each describes itself, and shown without importing one of them."""

import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Final

import click
import pytest
from click.testing import CliRunner

from service import commands
from service.cli import COMMANDS, cli
from service.commands.lazy import LazyCommand

WIDTHS: Final = (30, 45, 80, 10_000)
DRIVERS: Final = {
    "aiohttp", "aiokafka", "alembic", "asyncpg", "cryptography", "prometheus_client", "psycopg", "redis", "rich",
    "sqlalchemy", "stripe", "structlog",
}  # fmt: skip
IMPORTED: Final = """
import sys
sys.argv[1:] = {arguments!r}
from service.__main__ import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def imported(*arguments: str) -> tuple[str, set[str]]:
    """What a command says, and which modules it has imported, in a process of its own."""
    program = IMPORTED.format(arguments=[*arguments])
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout, set(ended.stderr.split())


def defined() -> Iterator[click.Command]:
    """Every command that a module of `service/commands` names."""
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        yield from (each for each in vars(import_module(module.name)).values() if isinstance(each, click.Command))


def reachable(command: click.Command) -> Iterator[click.Command]:
    """The command, and what is in it."""
    yield command
    if isinstance(command, click.Group):
        for member in command.commands.values():
            yield from reachable(member)


def test_every_command_that_is_written_can_be_called() -> None:
    called = {id(each) for listed in COMMANDS.values() for each in reachable(listed.load())}

    assert [each.name for each in defined() if id(each) not in called] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_as_it_describes_itself(name: str) -> None:
    listed, command = COMMANDS[name].listed(name), COMMANDS[name].load()

    assert command.name == name
    assert not command.hidden
    for width in WIDTHS:
        assert listed.get_short_help_str(width) == command.get_short_help_str(width)


def test_the_list_is_in_order_and_the_same_after_its_commands_were_called() -> None:
    before = CliRunner().invoke(cli, ["--help"])
    for name in COMMANDS:
        CliRunner().invoke(cli, [name, "--help"])
    after = CliRunner().invoke(cli, ["--help"])

    assert before.output == after.output
    shown = [line.split()[0] for line in before.output.partition("Commands:\n")[2].splitlines()]
    assert shown == sorted(COMMANDS)
    assert set(cli.list_commands(click.Context(cli))) == set(COMMANDS)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_neither_the_list_nor_the_version_imports_a_command(option: str) -> None:
    said, modules = imported(option)

    assert "stripe-ingest, version" in said or "receive" in said
    assert modules.isdisjoint(DRIVERS)
    assert {name for name in modules if name.startswith("service.commands.")} == {"service.commands.lazy"}


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        (("receive", "--help"), {"alembic", "sqlalchemy", "psycopg", "redis"}),
        (("consume", "--help"), {"alembic", "sqlalchemy", "psycopg", "redis", "stripe"}),
        (("migrate", "--help"), {"aiohttp", "aiokafka", "asyncpg", "stripe"}),
        (("topics", "apply", "--help"), {"aiohttp", "alembic", "asyncpg", "stripe"}),
        (("rebuild", "--help"), {"aiohttp", "alembic", "stripe"}),
        (("dead-letter", "replay", "--help"), {"aiohttp", "alembic", "stripe"}),
        (("secrets", "--help"), {"aiohttp", "aiokafka", "alembic", "asyncpg", "stripe"}),
        (("config", "check", "--help"), {"aiohttp", "aiokafka", "alembic", "stripe"}),
        (("events", "list", "charge.refunded"), {"aiohttp", "aiokafka", "alembic", "asyncpg", "stripe"}),
        (("contract", "list"), {"aiohttp", "aiokafka", "alembic", "asyncpg", "stripe"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_imports_no_driver_that_it_does_not_need(command: tuple[str, ...], unneeded: set[str]) -> None:
    _, modules = imported(*command)

    assert modules.isdisjoint(unneeded)


def test_a_place_that_is_no_command_is_refused() -> None:
    with pytest.raises(TypeError, match=r"service\.cli:COMMANDS"):
        LazyCommand("service.cli:COMMANDS", "A table.").load()


def test_a_name_that_there_is_not_is_refused() -> None:
    refused = CliRunner().invoke(cli, ["recieve"])

    assert refused.exit_code == 2
    assert "No such command 'recieve'" in refused.output
