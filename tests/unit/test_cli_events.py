"""`stripe-ingest events list` and what `config check` says of event types: for eyes, for pipes, for scripts."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from service.cli import cli
from service.commands.events import show_routes
from service.normalize.event_types import CATALOGUE, SNAPSHOT_TYPES, THIN_TYPES
from service.records import Topics
from service.routing import route, routes

Run: TypeAlias = Callable[..., Result]

TOPICS: Final = Topics("stripe")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in an empty folder, without any setting in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "service.commands.options.configure", lambda *_: None
    )  # the log of the other tests stays as it is
    monkeypatch.delenv("STRIPE_INGEST_CONFIG", raising=False)
    return lambda *arguments, **environment: CliRunner().invoke(cli, arguments, env=environment, catch_exceptions=False)


def drawn(event_types: tuple[str, ...], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    found = [route(event_type, TOPICS) for event_type in event_types] or list(routes(TOPICS))
    show_routes(console, found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_pipe_there_is_a_line_for_each_type_and_nothing_else(run: Run) -> None:
    result = run("events", "list")

    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == [*SNAPSHOT_TYPES, *THIN_TYPES]
    assert {len(line) for line in lines} == {8}
    assert ["invoice.paid", "snapshot", "subscription", "stripe.subscriptions", "subscription, else invoice", "invoice",
            "v1.invoice.paid", "listed"] in lines  # fmt: skip


def test_for_scripts_there_is_json(run: Run) -> None:
    result = run("events", "list", "--json")

    found: list[dict[str, Any]] = json.loads(result.stdout)
    assert {each["event_type"] for each in found} == CATALOGUE
    assert next(each for each in found if each["event_type"] == "v1.charge.refunded") == {
        "event_type": "v1.charge.refunded",
        "form": "thin",
        "category": "other",
        "topic": "stripe.other",
        "key": "object, else customer, else account",
        "object_type": "charge",
        "twin": "charge.refunded",
        "listed": True,
        "suggestions": [],
    }


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--category", "refund"), 5),
        (("--category", "catalog"), 9),
        (("--thin",), 326),
        (("--snapshot",), 275),
        (("--thin", "--category", "refund"), 0),
        (("--thin", "--category", "other"), 326),
        (("--thin", "charge.refunded", "v1.charge.refunded"), 1),
    ],
)
def test_the_list_can_be_narrowed(run: Run, arguments: tuple[str, ...], shown: int) -> None:
    assert len(run("events", "list", *arguments).stdout.splitlines()) == shown


def test_the_topics_have_the_configured_prefix(run: Run) -> None:
    result = run("events", "list", "refund.created", STRIPE_INGEST__KAFKA__TOPIC_PREFIX="acme.stripe")

    assert result.stdout.split("\t")[3] == "acme.stripe.refunds"


def test_a_name_that_does_not_exist_is_shown_with_its_route_and_the_name_that_was_meant(run: Run) -> None:
    result = run("events", "list", "invoice.payment.failed")

    assert result.exit_code == 0
    assert result.stdout == (
        "invoice.payment.failed\tsnapshot\tsubscription\tstripe.subscriptions\tsubscription, else invoice\t-\t-\tunlisted\n"
    )
    assert result.stderr == (
        "invoice.payment.failed is no event type of Stripe's that this version knows; is it invoice.payment_failed?\n"
    )


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_fits_its_terminal_and_cuts_no_name(width: int) -> None:
    text = drawn((), width)

    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    # A name that is longer than its column goes on in the next line.
    whole = {line.split("  ")[0].strip() for line in text.splitlines()}
    long = {event_type for event_type in CATALOGUE if len(event_type) > width - 30}
    assert whole >= CATALOGUE - long
    told = {line.split("  ")[0]: line.split()[-1] for line in text.splitlines() if line.split("  ")[0] in CATALOGUE}
    assert set(told.values()) == {"-", "snapshot", "thin"}
    assert ["v1.payment_intent.succeeded", "payment_intent", "snapshot"] in [line.split() for line in text.splitlines()]
    assert all(any(event_type.startswith(start) for start in whole if len(start) >= width - 30) for event_type in long)


def test_a_topics_rule_is_told_once_above_its_types() -> None:
    lines = drawn((), 120).splitlines()

    headings = [line for line in lines if line.startswith("stripe.")]
    assert [line.split()[0] for line in headings] == [
        "stripe.payments", "stripe.refunds", "stripe.subscriptions", "stripe.customers", "stripe.catalog",
        "stripe.other", "stripe.other",
    ]  # fmt: skip
    assert "key: payment intent, else charge, else checkout session" in lines


def test_brackets_in_a_type_are_no_markup() -> None:
    assert "v2.core.account[requirements].updated" in drawn(("v2.core.account[requirements].updated",), 80)


def test_the_table_marks_what_is_not_listed() -> None:
    assert any(
        line.split() == ["charge.disputed", "-", "unlisted"] for line in drawn(("charge.disputed",), 80).splitlines()
    )


def test_config_check_warns_of_event_types_that_do_not_exist_and_passes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "stripe-ingest.toml").write_text(
        '[database]\nurl = "postgresql://u@h/d"\n'
        '[[endpoints]]\nname = "shop"\nmode = "live"\nsecrets = ["whsec_one"]\n'
        'events = ["charge.refunded", "*", "invoice.payment.failed", "v1.charge.refunded"]\n',
        encoding="utf-8",
    )

    result = run("config", "check")

    assert result.exit_code == 0
    assert "The configuration is right." in result.stdout
    assert result.stderr == (
        "warning: endpoints[0] (shop).events: invoice.payment.failed is no event type of Stripe's that this version"
        " knows; is it invoice.payment_failed?\n"
    )
