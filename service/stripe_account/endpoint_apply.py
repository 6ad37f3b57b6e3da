"""A plan carried out at Stripe, so that it can end at any moment and be begun again.

Of an endpoint that is being made, the store knows before Stripe does, and its secret is on the disk before anything
else happens. Whoever calls these holds the store's lock.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from service.credentials.book import Creation, Credentials, EndpointCredentials, SigningSecret, WebhookEndpointParams
from service.errors import (
    SecretNotTold,
    StripeApiError,
    StripeKeyRefused,
    StripeRequestRefused,
    StripeUnavailable,
)
from service.normalize.event_types import NEWEST_API_VERSION
from service.ports import Clock, CredentialStore, WebhookEndpoint, WebhookEndpoints
from service.stripe_account.endpoint_matching import CREATION, REPLACES, made_by
from service.stripe_account.endpoint_plan import Changes, Create, Delete, Keep, Replay, Step, Update, changes_of
from service.stripe_account.endpoint_wanted import WantedEndpoint


def _new_key() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True)
class Registration:
    """Makes webhook endpoints in one account and mode, and keeps their secrets. `new_key` gives idempotency keys."""

    endpoints: WebhookEndpoints
    store: CredentialStore
    clock: Clock
    new_key: Callable[[], str] = _new_key

    async def credentials(self) -> Credentials:
        """What the store has now."""
        return await asyncio.to_thread(self.store.read)

    async def keep(self, name: str, credentials: EndpointCredentials) -> None:
        """Have the store keep an endpoint's credentials; they are on the disk when this returns."""
        book = await self.credentials()
        await asyncio.to_thread(self.store.write, book.having(name, credentials))

    async def create(self, name: str, params: WebhookEndpointParams) -> WebhookEndpoint:
        """Make an endpoint and keep its secret. Raises as `WebhookEndpoints.create`.

        Unless Stripe refuses it, the store remembers that it was begun: to repeat it is to get the same endpoint.
        """
        key = self.new_key()
        marked = replace(params, metadata={**params.metadata, CREATION: key})
        creation = Creation(key, self.clock.now(), marked)
        await self.keep(name, replace((await self.credentials()).of(name), creation=creation))
        return await self._told(name, creation)

    async def repeat(self, name: str, creation: Creation, made: WebhookEndpoint | None) -> WebhookEndpoint | None:
        """Repeat a creation and keep the secret that is told now; `made` is what Stripe lists of it.

        None where there is nothing to repeat: Stripe has refused it, or what it made has been deleted since. It is
        forgotten then. Raises `SecretNotTold` where it has made something whose secret Stripe does not repeat.
        """
        try:
            endpoint = await self._told(name, creation)
        except StripeUnavailable as error:
            raise error if made is None else _not_now(name, made, error) from None
        except SecretNotTold:
            raise
        except StripeRequestRefused:
            return None
        if made is None and endpoint.id not in {each.id for each in await self.endpoints.all()}:
            kept = (await self.credentials()).of(name)
            others = tuple(each for each in kept.signing if each.webhook_endpoint_id != endpoint.id)
            await self.keep(name, replace(kept, signing=others))
            return None
        return made or endpoint

    async def _told(self, name: str, creation: Creation) -> WebhookEndpoint:
        """Ask for it and keep its secret; where Stripe refuses it and there is nothing, forget that it was begun."""
        try:
            created = await self.endpoints.create(creation.params, idempotency_key=creation.idempotency_key)
        except SecretNotTold as error:
            way_out = f"`endpoints roll {name} --replace` makes another one"
            raise SecretNotTold(f"{error}: {way_out}", request_id=error.request_id) from None
        except StripeRequestRefused as error:
            # Stripe repeats a failure, too, that came when it had made the endpoint.
            made = made_by(creation, await self.endpoints.all())
            if made is not None:
                raise SecretNotTold(
                    f"{made.id} was made, and Stripe does not tell its signing secret ({error});"
                    f" `endpoints roll {name} --replace` makes another one",
                    request_id=error.request_id,
                ) from None
            await self.keep(name, replace((await self.credentials()).of(name), creation=None))
            raise
        secret = SigningSecret(created.secret, self.clock.now(), created.endpoint.id)
        await self.keep(name, replace((await self.credentials()).of(name).with_signing(secret), creation=None))
        return created.endpoint


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was taken, or what Stripe had against it."""

    step: Step
    endpoint_id: str | None
    refused: StripeApiError | None = None


async def carry_out(steps: Sequence[Step], registration: Registration) -> AsyncIterator[Done]:
    """Take the steps, one after the other. One that Stripe refuses is told of, and the others are taken all the same.

    Raises `StripeKeyRefused` and `StripeUnavailable`, which are not about one step, and `ConfigurationError` where the
    store cannot be written.
    """
    for step in steps:
        refused: StripeApiError | None = None
        endpoint_id = step.endpoint_id
        try:
            endpoint_id = await _taken(step, registration)
        except (StripeKeyRefused, StripeUnavailable):
            raise
        except StripeApiError as error:
            refused = error
        yield Done(step, endpoint_id, refused)


async def _taken(step: Step, registration: Registration) -> str | None:
    """Take a step; gives the id of the endpoint, where it has come to one."""
    match step:
        case Keep():
            return step.endpoint_id
        case Create():
            return await _created(step.wanted, registration)
        case Replay():
            endpoint = await registration.repeat(step.name, step.creation, step.made)
            if endpoint is None and REPLACES in step.creation.params.metadata:
                return None  # of a roll; the one that it was to take over from is there
            if endpoint is None:
                return await _created(step.wanted, registration)
            changes = changes_of(step.wanted, endpoint, waiting=step.waits)
            await _update(registration.endpoints, endpoint.id, changes)
            return endpoint.id
        case Update():
            await _update(registration.endpoints, step.endpoint_id, step.changes)
            return step.endpoint_id
        case Delete():
            await registration.endpoints.delete(step.endpoint_id)
            return step.endpoint_id
        case _:
            assert_never(step)


async def _created(wanted: WantedEndpoint, registration: Registration) -> str:
    return (await registration.create(wanted.name, wanted.params(api_version=NEWEST_API_VERSION))).id


async def _update(endpoints: WebhookEndpoints, endpoint_id: str, changes: Changes) -> None:
    if changes != Changes():
        await endpoints.update(
            endpoint_id,
            url=changes.url,
            enabled_events=changes.enabled_events,
            enabled=changes.enabled,
            metadata=changes.metadata,
        )


def _not_now(name: str, made: WebhookEndpoint, error: StripeUnavailable) -> StripeUnavailable:
    return StripeUnavailable(
        f"{made.id} was made, and Stripe does not tell its signing secret now ({error}); it may later, or"
        f" `endpoints roll {name} --replace` makes another one",
        request_id=error.request_id,
    )
