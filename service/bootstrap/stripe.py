"""Composition of what reads Stripe's API."""

from service.clock import SystemClock
from service.config import Config
from service.events import Secret
from service.stripe_account.client import StripeApiReader
from service.stripe_account.observer import StripeCounts


def stripe_reader(config: Config, key: Secret) -> StripeApiReader:
    """A reader of a key's account, at the configured rate."""
    return StripeApiReader(
        key,
        api_base=config.stripe.api_base,
        requests_per_second=config.stripe.requests_per_second,
        clock=SystemClock(),
        observer=StripeCounts(),
    )
