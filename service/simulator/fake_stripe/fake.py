"""The state of a Stripe of our own: accounts, what happened in them, who may see it, and who is told."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from service.clock import SystemClock
from service.ports import Clock
from service.simulator.events import DAY
from service.simulator.fake_stripe.delivering import Deliveries, Target
from service.simulator.fake_stripe.endpoints import ENDPOINTS_MAX, Endpoints
from service.simulator.fake_stripe.idempotency import Idempotency
from service.simulator.fake_stripe.keys import KeyMode, Keys
from service.simulator.fake_stripe.shelf import Shelf
from service.simulator.fake_stripe.trouble import Trouble
from service.simulator.objects import Ids, Object

EVENT_DAYS: Final = 30
"""How long Stripe tells of an event."""
REQUESTS_KEPT: Final = 1_000_000
ACCOUNT: Final = "acct_1SimulatedShop0001"


class Request(NamedTuple):
    """A request that came; `at` is in monotonic seconds of the fake's clock, `status` None where no answer went out."""

    method: str
    path: str
    at: float
    status: int | None


@dataclass(frozen=True, slots=True)
class Book:
    """Everything of one account in one mode."""

    account: str
    livemode: bool
    events: Shelf
    objects: dict[str, Shelf]
    endpoints: Endpoints

    @property
    def mode(self) -> KeyMode:
        """What its keys are called after."""
        return "live" if self.livemode else "test"

    def of(self, kind: str) -> Shelf:
        """The objects of a kind, by Stripe's name of it (`payment_intent`, `checkout.session`, …)."""
        return self.objects.setdefault(kind, Shelf(kind))


class FakeStripe:
    """A Stripe for tests, and for people without an account. `serving` puts it on a port.

    `account` is the account of every event that names no connected one. `speed` is how many seconds of Stripe's retry
    schedule pass in one of ours. What is random is so by `seed`. `endpoints_max` is Stripe's limit for each mode.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        account: str = ACCOUNT,
        seed: int = 1,
        speed: float = 1.0,
        endpoints_max: int = ENDPOINTS_MAX,
    ) -> None:
        self.clock = clock or SystemClock()
        self.account = account
        self.ids = Ids(seed)
        self.keys = Keys(self.ids)
        self.trouble = Trouble()
        self.idempotency = Idempotency()
        self.deliveries = Deliveries(self._target, self._answered, speed=speed)
        self._endpoints_max = endpoints_max
        self._books: dict[tuple[str, bool], Book] = {}
        self._pending: dict[str, set[str]] = {}
        self._requests: deque[Request] = deque(maxlen=REQUESTS_KEPT)

    def new_key(
        self, mode: KeyMode = "test", permissions: Collection[str] | None = None, *, account: str | None = None
    ) -> str:
        """Make an API key: a restricted one with these permissions (`event_read`, …), a secret one where it is None."""
        return self.keys.new(account or self.account, mode, None if permissions is None else frozenset(permissions))

    def expire_key(self, key: str) -> None:
        """From now on the key is refused as expired."""
        self.keys.expire(key)

    def add(self, event: Mapping[str, Any]) -> None:
        """Something happened: keep the event and its object's new state, and begin to deliver it.

        The object's present state is that of the event added last, whatever `created` says. An id that is there
        already is taken no second time.
        """
        if event.get("object") != "event":
            raise ValueError("only snapshot events can be added")
        book = self._book_of(event)
        if book.events.get(event["id"]) is not None:
            return
        book.events.put(dict(event))
        self._keep(book, event["type"], event["data"]["object"])
        taking = self._taking(book, event["type"])
        self._pending[event["id"]] = set(taking)
        for endpoint_id in taking:
            self.deliveries.begin(event["id"], endpoint_id)

    def add_all(self, events: Iterable[Mapping[str, Any]]) -> None:
        """`add` each, in this order."""
        for event in events:
            self.add(event)

    def put(self, obj: Object) -> None:
        """An object that no event tells of: Stripe fails to make one at times, and forgets it after 30 days."""
        self.book(self.account, livemode=bool(obj.get("livemode"))).of(obj["object"]).put(obj)

    def register(
        self,
        url: str,
        enabled_events: Collection[str],
        *,
        mode: KeyMode = "test",
        connect: bool = False,
        api_version: str | None = None,
    ) -> Object:
        """Register a webhook endpoint at any URL, a local one too; gives it with its `secret`."""
        endpoints = self.book(self.account, livemode=mode == "live").endpoints
        return endpoints.register(url, list(enabled_events), now=self.now(), connect=connect, api_version=api_version)

    def switch_off(self, endpoint_id: str) -> None:
        """Disable an endpoint as Stripe does by itself where all deliveries have failed for days."""
        self._endpoints_with(endpoint_id).update(endpoint_id, {"disabled": "true"})

    def roll_secret(self, endpoint_id: str) -> str:
        """Give an endpoint a new secret; the old ones sign too until `expire_old_secrets`."""
        return self._endpoints_with(endpoint_id).roll(endpoint_id)

    def expire_old_secrets(self, endpoint_id: str) -> None:
        """Leave an endpoint only its newest secret."""
        self._endpoints_with(endpoint_id).expire_old_secrets(endpoint_id)

    def mark_delivered(self, event_id: str) -> None:
        """As if every endpoint had answered 2xx to the event."""
        self._pending[event_id].clear()

    @property
    def requests(self) -> list[Request]:
        """The API requests that came, in the order of their ends."""
        return list(self._requests)

    def most_within(self, seconds: float, *, path: str = "/") -> int:
        """The largest number of requests, of those whose path begins so, that came within any such time."""
        times = sorted(request.at for request in self._requests if request.path.startswith(path))
        first, most = 0, 0
        for last, at in enumerate(times):
            while at - times[first] >= seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def record(self, request: Request) -> None:
        """Remember a request."""
        self._requests.append(request)

    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock.now().timestamp())

    def oldest_told(self) -> int:
        """Events that were made before this are not told of any more."""
        return self.now() - EVENT_DAYS * DAY

    def knows_account(self, account: str) -> bool:
        """Whether it is the own account or one of which something is known."""
        return account == self.account or any(known == account for known, _ in self._books)

    def book(self, account: str, *, livemode: bool) -> Book:
        """What an account has in a mode."""
        found = self._books.get((account, livemode))
        if found is None:
            endpoints = Endpoints(self.ids, livemode=livemode, most=self._endpoints_max)
            found = Book(account, livemode, Shelf("event"), {}, endpoints)
            self._books[account, livemode] = found
        return found

    def told(self, event: Object) -> Object:
        """The event as the API tells it now."""
        return {**event, "pending_webhooks": self.pending(event["id"])}

    def pending(self, event_id: str) -> int:
        """How many of the endpoints that an event was for have not taken it yet, and are still there."""
        return sum(
            any(book.endpoints.exists(endpoint_id) for book in self._books.values())
            for endpoint_id in self._pending[event_id]
        )

    def _book_of(self, event: Mapping[str, Any]) -> Book:
        return self.book(event.get("account") or self.account, livemode=bool(event["livemode"]))

    def _keep(self, book: Book, event_type: str, obj: Object) -> None:
        # A preview (`invoice.upcoming`) has no id: there is no such object yet.
        if not isinstance(obj.get("id"), str):
            return
        shelf = book.of(obj["object"])
        shelf.put(obj)
        # Named after the whole object: `customer.subscription.deleted` is a subscription that goes on to be there.
        if event_type == f"{obj['object']}.deleted":
            shelf.delete(obj["id"])

    def _taking(self, book: Book, event_type: str) -> list[str]:
        """The endpoints of the account itself, and of a connected one those of the platform.

        Its test events go to the platform's live endpoints too: an account that is connected in live mode can be
        tried out there.
        """
        taking = book.endpoints.taking(event_type, connect=False)
        if book.account != self.account:
            for livemode in {book.livemode, True}:
                taking += self.book(self.account, livemode=livemode).endpoints.taking(event_type, connect=True)
        return taking

    def _endpoints_with(self, endpoint_id: str) -> Endpoints:
        for book in self._books.values():
            if book.endpoints.exists(endpoint_id):
                return book.endpoints
        raise KeyError(endpoint_id)

    def _target(self, event_id: str, endpoint_id: str) -> Target | None:
        event = next(event for book in self._books.values() if (event := book.events.get(event_id)) is not None)
        try:
            endpoints = self._endpoints_with(endpoint_id)
        except KeyError:
            return None
        endpoint = endpoints.retrieve(endpoint_id)
        if endpoint["status"] != "enabled":
            return None
        return Target(endpoint["url"], endpoints.secrets(endpoint_id), self.told(event))

    def _answered(self, event_id: str, endpoint_id: str) -> None:
        self._pending[event_id].discard(endpoint_id)
