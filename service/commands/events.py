"""`events`: Stripe's event types, and where each goes."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Final, get_args

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.commands.options import with_topics
from service.contract import Category
from service.records import Topics
from service.routing import EventRoute, Form, advice, route, routes

OTHER_COLUMNS_WIDTH: Final = 30
"""What a listed event type leaves to the columns beside it, at least."""

_CATEGORIES: Final = get_args(Category)
_OTHER_FORM: Final[dict[Form, Form]] = {"snapshot": "thin", "thin": "snapshot"}


@click.group("events")
def events_group() -> None:
    """Look at Stripe's event types."""


@events_group.command("list")
@click.argument("event_types", nargs=-1, metavar="[TYPE]...")
@click.option("--category", type=click.Choice(get_args(Category)), help="Only this topic's.")
@click.option("--snapshot", "form", flag_value="snapshot", help="Only events that carry their object.")
@click.option("--thin", "form", flag_value="thin", help="Only events that name their object.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@with_topics
def events_list(
    topics: Topics, event_types: tuple[str, ...], category: Category | None, form: Form | None, as_json: bool
) -> None:
    """Show where each of Stripe's event types goes: its topic, key and object. Needs no configuration.

    Without a TYPE, all that this version knows. Into a pipe, a line each with tabs between: type, form, category,
    topic, key, object, twin, and whether it is listed.

    A TYPE that Stripe is not known to have is shown as well, with its way, and the exit code is 0: a script that wants
    to know reads `listed` and `suggestions` of --json.
    """
    found = [route(event_type, topics) for event_type in event_types] or list(routes(topics))
    shown = [each for each in found if category in {None, each.category} and form in {None, each.form}]
    console = Console()
    if as_json:
        click.echo(orjson.dumps([asdict(each) for each in shown]))
    elif console.is_terminal:
        show_routes(console, shown)
    else:
        for each in shown:
            click.echo("\t".join(each.columns()))
    for each in found:
        if not each.listed:
            click.echo(f"{each.event_type} {advice(each.event_type)}", err=True)


def show_routes(console: Console, found: Sequence[EventRoute]) -> None:
    """Where event types go: a table for each topic and form, since a topic's events share their key's rule."""
    for (topic, category, key, form), group in groupby(
        sorted(found, key=lambda each: (_CATEGORIES.index(each.category), each.form)),
        key=lambda each: (each.topic, each.category, each.key, each.form),
    ):
        members = list(group)
        console.print(Text.assemble((topic, "bold cyan"), f"   category {category}, {form} events"))
        console.print(Text(f"key: {key}", style="dim"))
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        longest = max(len(each.event_type) for each in members)
        room = max(OTHER_COLUMNS_WIDTH, console.width - OTHER_COLUMNS_WIDTH)
        # The name is what people copy: where there is no room for all, the object's is folded first.
        table.add_column("event type", overflow="fold", width=min(longest, room))
        table.add_column("object", overflow="fold")
        table.add_column("twin", no_wrap=True, min_width=len("unlisted"))
        for each in members:
            twin = (_OTHER_FORM[form] if each.twin else "-") if each.listed else "unlisted"
            # Text, not markup: some types have brackets.
            table.add_row(
                Text(each.event_type), Text(each.object_type or "-"), twin, style="" if each.listed else "yellow"
            )
        console.print(table)
        console.print()
    console.print(
        "An event that knows none of its key's ids has its object's id for a key, else its customer's, else its"
        " account's. A twin tells the same fact in the other form; the thin one has the same name after v1.",
        style="dim",
        highlight=False,
    )
