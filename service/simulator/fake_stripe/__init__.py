"""A fake Stripe: a real HTTP server with Stripe's events, objects, webhook endpoints, keys, limits and failures."""

from service.simulator.fake_stripe.delivering import Attempt
from service.simulator.fake_stripe.fake import FakeStripe, Request
from service.simulator.fake_stripe.keys import PERMISSIONS, KeyMode
from service.simulator.fake_stripe.server import serving
from service.simulator.fake_stripe.trouble import Failing, Held, Lost, RateLimited, Slow

__all__ = [
    "PERMISSIONS",
    "Attempt",
    "Failing",
    "FakeStripe",
    "Held",
    "KeyMode",
    "Lost",
    "RateLimited",
    "Request",
    "Slow",
    "serving",
]
