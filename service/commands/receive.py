"""`receive`: the receiver, and what runs beside it."""

from collections.abc import Sequence
from typing import Final

import click

from service.bootstrap.dedupe import check_dedupe
from service.bootstrap.receiver import Companion, receive_until_told, worker
from service.bootstrap.recovery import keep_reconciled
from service.bootstrap.watch import keep_watched
from service.commands.options import run_async, with_loaded_config
from service.config import Config
from service.receiver.reloading import Load
from service.receiver.workers import Workers
from service.stripe_account.api_keys import event_keys, stripe_keys

COMPANIONS: Final[Sequence[Companion]] = (keep_reconciled, keep_watched)
"""What runs beside a receiver, in its process."""


@click.command()
@with_loaded_config
def receive(config: Config, load: Load) -> None:
    """Receive webhooks and publish them.

    Endpoints, their secrets and keys are taken anew on SIGHUP, and within a second when the file of secrets.store
    changes; other settings need a restart. A configuration that is wrong is logged, and changes nothing.

    With receiver.workers above 1, so many processes share the port; the admin side of each is on a port of its own,
    counted up from admin.port.
    """
    _check_keys(config)

    def loaded() -> Config:
        again = load()
        _check_keys(again)
        return again

    if config.receiver.workers == 1:
        run_async(lambda: receive_until_told(config, COMPANIONS, loaded))
        return
    config.webhook_endpoints()  # refused once, here, rather than by each worker
    check_dedupe(config)

    def work(index: int) -> None:
        run_async(lambda: receive_until_told(worker(config, index), COMPANIONS, lambda: worker(loaded(), index)))

    Workers(config.receiver.workers, work).run()


def _check_keys(config: Config) -> None:
    """Raise `ConfigurationError` for API keys that the companions could not use: in a loop nobody would read it."""
    stripe_keys(config)
    event_keys(config)
