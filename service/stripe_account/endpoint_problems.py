"""What can be wrong with the webhook endpoints, what is worth knowing of them, and what a look at them comes to."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.stripe_account.api_keys import KeyMode
from service.stripe_account.endpoint_plan import ENDPOINTS_MAX


class EndpointProblem(StrEnum):
    """What is wrong with an endpoint, and keeps events from arriving, or from arriving as they should."""

    MISSING = "missing"
    """Stripe does not have it."""
    DISABLED = "disabled"
    """It is switched off at Stripe, by somebody or by Stripe itself."""
    DOUBLED = "doubled"
    """Another one delivers to the same URL, or was made here for the same name, and its secret is not known."""
    URL_DIFFERS = "url_differs"
    """Stripe delivers to another URL than the configuration's."""
    EVENTS_MISSING = "events_missing"
    """Event types of the configuration are not among those that Stripe delivers."""
    API_VERSION_DIFFERS = "api_version_differs"
    """The configuration names an API version, and events are rendered in another."""
    MIXED_VERSIONS = "mixed_versions"
    """Another endpoint gets the same events in another API version."""
    SECRET_UNKNOWN = "secret_unknown"  # noqa: S105 -- a tag
    """It has no signing secret here: what it delivers is refused."""
    CREATION_UNFINISHED = "creation_unfinished"
    """Registering it was begun, and has not come to its end."""
    REDIRECTS = "redirects"
    """Its URL answers with a redirect, which Stripe takes for a failure."""
    FOREIGN_ANSWER = "foreign_answer"
    """Something else than a receiver answers at its URL."""
    NOT_SERVED = "not_served"
    """A receiver answers at its URL, and has no endpoint there."""
    UNDELIVERED = "undelivered"
    """Stripe has events for it that were not taken in time."""


class EndpointNote(StrEnum):
    """What is worth knowing, and not wrong."""

    URL_UNKNOWN = "url_unknown"
    """The configuration does not say its URL: it is taken for the one at Stripe that has its path, if any."""
    UNREACHABLE_FROM_HERE = "unreachable_from_here"
    """Its URL cannot be reached from this machine, which does not say that Stripe cannot."""
    NOT_ASKED = "not_asked"
    """A receiver answers at its URL, and does not say more to who is not Stripe."""
    NOT_PINNED = "not_pinned"
    """Its API version is the account's, which changes when somebody upgrades that."""
    EXTRA_EVENTS = "extra_events"
    """It gets event types that the configuration does not name."""
    THIN_EVENTS = "thin_events"
    """The configuration names thin events, whose destinations are not looked at."""
    ROLL_UNDER_WAY = "roll_under_way"
    """Its signing secret is being rolled."""
    EVENTS_UNREAD = "events_unread"
    """Whether all events were delivered is not known."""
    STRANGERS = "strangers"
    """Of an account: it has webhook endpoints that are nobody's here."""
    LEFT_OVER = "left_over"
    """Of an account: it has one of ours whose name is not configured any more."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong; `said` is a sentence, for a person, with the way out where there is one."""

    kind: EndpointProblem
    said: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is not."""

    kind: EndpointNote
    said: str


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The events that an endpoint should have taken by now."""

    count: int
    oldest: datetime | None
    """Of those that were read."""
    more: bool
    """Whether there may be more of them."""


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """What is known of one endpoint; `undelivered` is None where that is not."""

    name: str
    mode: KeyMode
    endpoint_id: str | None
    url: str | None
    enabled: bool | None
    api_version: str | None
    undelivered: Undelivered | None
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What is known of the endpoints that one key is for."""

    account: str
    mode: KeyMode
    used: int
    """How many webhook endpoints there are in this mode, whoever made them."""
    endpoints: tuple[EndpointStatus, ...]
    notes: tuple[Note, ...]

    @property
    def left(self) -> int:
        """How many more Stripe allows."""
        return max(0, ENDPOINTS_MAX - self.used)


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of all of them."""

    accounts: tuple[AccountStatus, ...]
    not_looked_at: tuple[str, ...]
    """The configured endpoints that have no API key."""

    @property
    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """Of all accounts."""
        return tuple(endpoint for account in self.accounts for endpoint in account.endpoints)

    @property
    def has_problems(self) -> bool:
        """Whether anything is wrong."""
        return any(endpoint.problems for endpoint in self.endpoints)
