"""The command line: which commands there are. What they do is in the modules that they are imported from."""

from collections.abc import Mapping
from typing import Final

import click

from service.commands.lazy import LazyCommand, LazyGroup

COMMANDS: Final[Mapping[str, LazyCommand]] = {
    "backfill": LazyCommand(
        "service.commands.backfill:backfill",
        "Publish what Stripe's objects are like now, as snapshots, to the topics of their events.",
    ),
    "config": LazyCommand("service.commands.config:config_group", "Check or begin a configuration."),
    "consume": LazyCommand("service.commands.consume:consume", "Keep a projection's tables right from the topics."),
    "contract": LazyCommand(
        "service.commands.contract:contract_group",
        "Show the published contract: what services downstream may build on.",
    ),
    "dead-letter": LazyCommand(
        "service.commands.redrive:dead_letter_group",
        "Look at the records that a consumer could not apply, and replay them to it.",
    ),
    "endpoints": LazyCommand(
        "service.commands.endpoints:endpoints_group",
        "Register the configuration's endpoints at Stripe, and look after them there.",
    ),
    "events": LazyCommand("service.commands.events:events_group", "Look at Stripe's event types."),
    "fake-stripe": LazyCommand(
        "service.commands.fake_stripe:fake_stripe",
        "Serve a fake Stripe until it is interrupted: events, objects, webhook endpoints, keys.",
    ),
    "keys": LazyCommand(
        "service.commands.keys:keys_group",
        "Check the API keys: endpoints' api_key, and reconcile.api_key.",
    ),
    "migrate": LazyCommand("service.commands.migrate:migrate", "Bring the database's schema up to date."),
    "quarantine": LazyCommand(
        "service.commands.redrive:quarantine_group",
        "Look at the bodies that could not be normalized, and take them to their topics after all.",
    ),
    "rebuild": LazyCommand(
        "service.commands.rebuild:rebuild",
        "Fold every object of a projection anew from its ledger, and correct what its tables say otherwise.",
    ),
    "receive": LazyCommand("service.commands.receive:receive", "Receive webhooks and publish them."),
    "reconcile": LazyCommand(
        "service.commands.reconcile:reconcile",
        "Find what Stripe lists and nobody has received, and publish it as if it had just been delivered.",
    ),
    "secrets": LazyCommand(
        "service.commands.secrets:secrets_group",
        "Keep the endpoints' signing secrets and API keys in a file (secrets.store), encrypted where there is a key.",
    ),
    "send": LazyCommand(
        "service.commands.send:send",
        'Sign a realistic sample event and post it to an endpoint: Stripe\'s "send test webhook".',
    ),
    "simulate": LazyCommand(
        "service.commands.simulate:simulate",
        "Play a short life of a shop: payments, refunds, a subscription; some events twice, some out of order.",
    ),
    "topics": LazyCommand("service.commands.topics:topics_group", "Create and check the Kafka topics."),
    "up": LazyCommand(
        "service.commands.up:up",
        "Run everything on this machine: Kafka, Postgres, the receiver and the consumers.",
    ),
}
"""Every command. To list them imports none; to run one imports its module, and with it the drivers that it needs."""


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stripe-ingest", prog_name="stripe-ingest")
def cli() -> None:
    """From Stripe's webhooks to Kafka topics of normalized events and Postgres tables that are right."""
