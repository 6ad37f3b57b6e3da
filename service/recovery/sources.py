"""What recovery reads: an account's API, for the endpoints that get its events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.events import Endpoint
from service.normalize.envelope import DEFAULT_ACCOUNT
from service.ports import StripeReader


@dataclass(frozen=True, slots=True)
class Source:
    """One account in one mode, as one key reads it, and the configured endpoints that get its events.

    `name` tells the jobs of several apart; it is the same whichever key is used. One of the endpoints is the account's
    own.
    """

    name: str
    livemode: bool
    reader: StripeReader
    endpoints: Sequence[Endpoint]

    @property
    def own_endpoints(self) -> Sequence[Endpoint]:
        """Without those for connected accounts, whose events and objects are not on this account's lists."""
        return [endpoint for endpoint in self.endpoints if not endpoint.connect]

    @property
    def mode(self) -> Literal["live", "test"]:
        """The mode, as people and metrics call it."""
        return "live" if self.livemode else "test"

    @property
    def main_endpoint(self) -> Endpoint:
        """The endpoint in whose name objects are published: one that says its account, where one does."""
        return next((endpoint for endpoint in self.own_endpoints if endpoint.account), self.own_endpoints[0])

    @property
    def account(self) -> str:
        """The account, as records and tables have it."""
        return self.main_endpoint.account or DEFAULT_ACCOUNT
