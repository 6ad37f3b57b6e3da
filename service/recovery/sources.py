"""What recovery reads: an account's API, for the endpoints that get its events."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.events import Endpoint
from service.normalize.envelope import DEFAULT_ACCOUNT
from service.ports import StripeReader


@dataclass(frozen=True, slots=True)
class Source:
    """One account in one mode, as one key reads it, and the configured endpoints that get its events.

    `name` tells the jobs of several apart; it is the same whichever key is used.
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
    def account(self) -> str:
        """The account, as records and tables have it."""
        return next((endpoint.account for endpoint in self.own_endpoints if endpoint.account), DEFAULT_ACCOUNT)
