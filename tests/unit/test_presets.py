"""The presets: whole configurations of five integrations, and a page each that holds what it says."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click
import pytest
from click.testing import CliRunner

from service.cli import cli
from service.commands.initial_configuration import INITIAL_CONFIGURATION
from service.config import Config, load
from service.errors import ConfigurationError
from service.normalize.event_types import CATALOGUE
from service.presets import PRESETS, with_public_url
from service.simulator.events import SAMPLE_EVENT_TYPES

PAGES: Final = Path(__file__).parents[2] / "service" / "presets"
DATABASE_URL: Final = "postgresql://host/payments"
STORE_KEY: Final = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

PAYMENT_INTENTS: Final = {"payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.processing"}
MEMBERSHIPS: Final = {
    "charge.expired", "charge.failed", "charge.pending", "charge.refunded", "charge.succeeded",
    "checkout.session.completed", "checkout.session.expired",
    "customer.created", "customer.deleted",
    "customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted",
    "customer.subscription.pending_update_expired",
    "payment_intent.payment_failed", "price.deleted", "price.updated", "product.updated",
}  # fmt: skip
CART: Final = {
    "checkout.session.completed", "charge.refunded", "charge.refund.updated", "charge.succeeded", "invoice.paid",
    "invoice.payment_failed", "customer.subscription.updated", "customer.subscription.deleted",
}  # fmt: skip

# preset → endpoint → (mode, path, events)
WANTED: Final[Mapping[str, Mapping[str, tuple[str, str, set[str]]]]] = {
    "allsto": {"allsto": ("live", "/webhooks/allsto", PAYMENT_INTENTS)},
    "ultimate-member": {
        "ultimate-member-sandbox": ("test", "/webhooks/ultimate-member-sandbox", MEMBERSHIPS),
        "ultimate-member-live": ("live", "/webhooks/ultimate-member-live", MEMBERSHIPS),
    },
    "artha-job-board": {
        "artha-payment-succeeded": (
            "live", "/api/v1/webhook/subscription/payment-intent/succeded", {"invoice.payment_succeeded"},
        ),
        "artha-payment-failed": (
            "live", "/api/v1/webhook/subscription/payment-intent/failed", {"invoice.payment_failed"},
        ),
        "artha-renewal-canceled": (
            "live", "/api/v1/webhook/subscription/renewal/canceled", {"customer.subscription.deleted"},
        ),
        "artha-verify": ("live", "/webhook/stripe/verify", {"checkout.session.completed"}),
    },
    "fluent-cart": {
        "fluent-cart-test": ("test", "/webhooks/fluent-cart-test", CART),
        "fluent-cart-live": ("live", "/webhooks/fluent-cart-live", CART),
    },
    "uncubus": {"uncubus": ("test", "/internal/create-payment", {"payment_intent.succeeded"})},
}  # fmt: skip

PERMISSIONS: Final[Mapping[str, set[str]]] = {
    "allsto": {"payment_intent_write"},
    "ultimate-member": {
        "customer_write", "checkout_session_write", "customer_portal_write", "plan_read", "subscription_read",
        "webhook_write",
    },
    "artha-job-board": {"checkout_session_write", "payment_intent_write", "event_read"},
    "fluent-cart": {"event_read", "webhook_write"},
    "uncubus": {"event_read", "webhook_write"},
}  # fmt: skip

LABELS: Final = {
    "checkout_session_write": ("Checkout Sessions", "Write"),
    "customer_portal_write": ("Customer portal", "Write"),
    "customer_write": ("Customers", "Write"),
    "event_read": ("Events", "Read"),
    "payment_intent_write": ("PaymentIntents", "Write"),
    "plan_read": ("Prices", "Read"),
    "subscription_read": ("Subscriptions", "Read"),
    "webhook_write": ("Webhook Endpoints", "Write"),
}
"""Scope → what Stripe's dashboard calls it, and the access to choose there."""


@pytest.fixture(params=PRESETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def loaded(name: str, folder: Path) -> Config:
    """The preset as it is, with the files that it names in this folder."""
    secrets = {"database-url": DATABASE_URL, "store-key": STORE_KEY}
    text = PRESETS[name].configuration
    for file in re.findall(r'^[a-z_]+_file = "/run/secrets/([^"]+)"', text, re.MULTILINE):
        live = 'mode = "live"' in text.split(f"/{file}")[0].rpartition("[[endpoints]]")[2]
        secrets.setdefault(file, f"rk_{'live' if live else 'test'}_{file.replace('-', '_')}")
        (folder / file).write_text(secrets[file] + "\n", encoding="utf-8")
    configuration = folder / "stripe-ingest.toml"
    moved = text.replace("/run/secrets", str(folder)).replace("/var/lib/stripe-ingest", str(folder))
    configuration.write_text(moved, encoding="utf-8")
    return load(str(configuration), {})


def test_every_file_of_the_folder_is_known_here() -> None:
    there = {path.name for path in PAGES.iterdir() if path.suffix in {".toml", ".md"}}

    assert there == {f"{name}.{kind}" for name in PRESETS for kind in ("toml", "md")}
    assert set(PRESETS) == set(WANTED)


def test_it_loads_as_it_is_once_its_files_are_there(name: str, tmp_path: Path) -> None:
    config = loaded(name, tmp_path)

    assert config.database_url == DATABASE_URL
    assert config.secrets.file() is not None
    assert {e.name: (e.mode, e.endpoint().path, set(e.events)) for e in config.endpoints} == WANTED[name]
    # No secret yet: it is given, or got, later, and until then everything is refused.
    assert [endpoint.secrets for endpoint in config.webhook_endpoints()] == [()] * len(config.endpoints)


def test_its_keys_have_the_permissions_of_the_integration_and_no_more(name: str, tmp_path: Path) -> None:
    config = loaded(name, tmp_path)

    assert [set(endpoint.permissions) for endpoint in config.endpoints] == [PERMISSIONS[name]] * len(config.endpoints)
    keyed = [endpoint.api_key is not None for endpoint in config.endpoints]
    # One keeps its keys in the store.
    assert keyed == [name != "fluent-cart"] * len(keyed)


def test_only_the_version_that_stands_at_stripe_is_pinned(tmp_path: Path) -> None:
    pinned: dict[str, str] = {}
    for name in PRESETS:
        folder = tmp_path / name
        folder.mkdir()
        pinned |= {each.name: each.api_version for each in loaded(name, folder).endpoints if each.api_version}

    assert pinned == {"uncubus": "2020-08-27"}


def test_its_events_are_in_the_catalogue_and_each_is_listed_once(name: str, tmp_path: Path) -> None:
    for endpoint in loaded(name, tmp_path).endpoints:
        assert set(endpoint.events) <= CATALOGUE
        assert len(set(endpoint.events)) == len(endpoint.events)


def test_ultimate_member_takes_seventeen_types() -> None:
    assert len(MEMBERSHIPS) == 17


def test_a_second_account_is_the_table_that_stands_commented_in_allsto(tmp_path: Path) -> None:
    text = PRESETS["allsto"].configuration
    head, _, second = text.partition("# [[endpoints]]")
    uncommented = "[[endpoints]]" + re.sub(r"^# ", "", second, flags=re.MULTILINE)
    whole = (head + uncommented).replace('"acct_…"', '"acct_2"').replace("/run/secrets", str(tmp_path))
    for file in ("database-url", "allsto-key", "allsto-second-key", "store-key"):
        value = {"database-url": DATABASE_URL, "store-key": STORE_KEY}.get(file, f"rk_live_{file}")
        (tmp_path / file).write_text(value, encoding="utf-8")
    (tmp_path / "c.toml").write_text(whole.replace("/var/lib/stripe-ingest", str(tmp_path)), encoding="utf-8")

    config = load(str(tmp_path / "c.toml"), {})

    first, second_endpoint = config.endpoints
    assert (second_endpoint.name, second_endpoint.account) == ("allsto-second", "acct_2")
    assert set(second_endpoint.events) == set(first.events)
    assert second_endpoint.permissions == first.permissions


# The pages -----------------------------------------------------------------------------------------------------------


def test_the_page_names_each_event_and_permission(name: str) -> None:
    page = PRESETS[name].page

    for _, _, events in WANTED[name].values():
        assert {event for event in events if f"`{event}`" not in page} == set()
    for permission in PERMISSIONS[name]:
        label, access = LABELS[permission]
        (row,) = [line for line in page.splitlines() if line.startswith("|") and f"`{permission}`" in line]
        assert label in row
        assert access in row


def test_the_page_shows_each_url_whole(name: str) -> None:
    words = set(re.split(r"[\s`]+", PRESETS[name].page))

    assert {f"https://hooks.example.com{path}" for _, path, _ in WANTED[name].values()} <= words


@pytest.mark.parametrize(
    "about", ["key", "url", "test", "when a delivery fails", "resend", "disconnect", "begin"]
)  # fmt: skip
def test_the_page_has_a_heading_for_each_question(name: str, about: str) -> None:
    headings = [line.lower() for line in PRESETS[name].page.splitlines() if line.startswith("#")]

    if about == "key" and name == "fluent-cart":
        about = "credentials"
    if about == "url" and name == "ultimate-member":
        about = "endpoints"
    assert any(about in heading for heading in headings)


def test_every_event_that_a_page_sends_has_a_sample(name: str) -> None:
    sent = re.findall(r"stripe-ingest send ([a-z_.]+)", PRESETS[name].page)

    assert sent
    assert set(sent) <= set(SAMPLE_EVENT_TYPES)
    assert set(sent) <= set().union(*(events for _, _, events in WANTED[name].values()))


def commands_of(page: str) -> Iterator[list[str]]:
    """Every `stripe-ingest …` of a page, in a block or in a line, as arguments."""
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        yield from (
            shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.startswith("stripe-ingest")
        )
    for quoted in re.findall(r"`(stripe-ingest [^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)):
        yield shlex.split(quoted)[1:]


def test_every_command_of_a_page_is_there_and_takes_its_arguments(name: str) -> None:
    commands = list(commands_of(PRESETS[name].page)) + list(commands_of(PRESETS[name].configuration))
    assert len(commands) > 10
    for arguments in commands:
        command: click.Command = cli
        rest = list(arguments)
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), rest.pop(0))
            assert found is not None, f"there is no `stripe-ingest {' '.join(arguments)}`"
            command = found
        command.make_context(str(command.name), rest)  # raises click's own error for what it does not take


def test_every_endpoint_that_a_page_names_is_the_presets(name: str) -> None:
    named = set(
        re.findall(
            r"--endpoint ([a-z-]+)|(?:secrets (?:set|remove)|endpoints (?:roll|disable|enable)) ([a-z-]+)",
            PRESETS[name].page,
        )
    )

    assert {first or second for first, second in named} <= set(WANTED[name])


# The commands --------------------------------------------------------------------------------------------------------


def test_init_writes_the_preset_and_says_which_urls_to_copy(name: str, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"

    done = CliRunner().invoke(
        cli, ["config", "init", "--preset", name, "--public-url", "https://pay.example.org/", "--output", str(file)]
    )

    assert done.exit_code == 0, done.output
    written = file.read_text(encoding="utf-8")
    assert '\npublic_url = "https://pay.example.org" ' in written
    assert written.replace(
        '\npublic_url = "https://pay.example.org" ', '\n# public_url = "https://hooks.example.com" '
    ) == (PRESETS[name].configuration)
    for _, path, _ in WANTED[name].values():
        assert f"https://pay.example.org{path}\n" in done.output
    assert f"stripe-ingest config presets {name}" in done.output


def test_init_without_a_preset_is_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"

    first = CliRunner().invoke(cli, ["config", "init", "--output", str(file)])
    again = CliRunner().invoke(cli, ["config", "init", "--preset", "uncubus", "--output", str(file)])

    assert (first.exit_code, first.output) == (0, f"wrote {file}\n")
    assert file.read_text(encoding="utf-8") == INITIAL_CONFIGURATION
    assert isinstance(again.exception, ConfigurationError)


@pytest.mark.parametrize("url", ["hooks.example.com", "ftp://x", 'https://a"\nport = 1', "https://x/?a=b", ""])
def test_a_public_url_that_is_none_is_refused_and_nothing_is_written(url: str, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"

    refused = CliRunner().invoke(cli, ["config", "init", "--public-url", url, "--output", str(file)])

    assert isinstance(refused.exception, ConfigurationError)
    assert not file.exists()


def test_a_public_url_has_one_place_in_every_file_that_is_written() -> None:
    for text in (INITIAL_CONFIGURATION, *(preset.configuration for preset in PRESETS.values())):
        assert with_public_url(text, "https://a.example").count("public_url") == text.count("public_url")
        assert 'public_url = "https://a.example"' in with_public_url(text, "https://a.example")


def test_presets_are_listed_and_shown(name: str) -> None:
    listed = CliRunner().invoke(cli, ["config", "presets"])
    shown = CliRunner().invoke(cli, ["config", "presets", name])

    assert re.search(rf"^ *{name} .*{re.escape(PRESETS[name].title)}", listed.output, re.MULTILINE)
    assert shown.output == PRESETS[name].page


def test_check_shows_the_urls_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.commands.options.configure", lambda *_: None)
    loaded("artha-job-board", tmp_path)
    file = tmp_path / "stripe-ingest.toml"
    file.write_text(with_public_url(file.read_text("utf-8"), "https://jobs.example.org"), encoding="utf-8")

    checked = CliRunner().invoke(cli, ["config", "check", "--config", str(file)])

    assert checked.exit_code == 0, checked.output
    for _, path, _ in WANTED["artha-job-board"].values():
        assert f"  https://jobs.example.org{path}\n" in checked.output
