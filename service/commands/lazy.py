"""A group of commands that are imported when they are called: a process pays for its own command's drivers only."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and what the list of commands says of it."""

    place: str
    """`package.module:attribute`."""
    help: str
    """The first sentence of the command's own help."""

    def load(self) -> click.Command:
        """Import it."""
        module, _, attribute = self.place.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.place}: is not a command")
        return command

    def listed(self, name: str) -> click.Command:
        """What stands for it where commands are only listed."""
        return click.Command(name, help=self.help)


class LazyGroup(click.Group):
    """A group of `lazy` commands, by name, beside those that are added to it as to any other."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **options: Any) -> None:
        super().__init__(*args, **options)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in order."""
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now if it was not yet."""
        if cmd_name in self.lazy and cmd_name not in self.commands:
            self.add_command(self.lazy[cmd_name].load(), cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, and import none."""
        listed = {name: command.listed(name) for name, command in self.lazy.items()}
        click.Group(commands={**listed, **self.commands}).format_commands(ctx, formatter)
