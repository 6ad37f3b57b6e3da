"""Rolling a signing secret without a refused delivery. Stripe's API rolls none, so there are two ways.

Either somebody rolls it in the dashboard, and the new one is kept beside the old one; or a second endpoint is made at
the same URL, and the first one switched off. It gets its events only when receivers know its secret. In both,
deliveries arrive under both secrets for a while, and the end is when a receiver has been seen to verify with the new
one. Whoever calls these holds the store's lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from service.credentials.book import EndpointCredentials, SigningSecret
from service.errors import SecretNotTold, StripeObjectMissing, StripeUnavailable
from service.events import Secret
from service.ports import CredentialStore, WebhookEndpoint, WebhookEndpoints
from service.signature import fingerprint
from service.stripe_account.endpoint_apply import Registration
from service.stripe_account.endpoint_matching import (
    ENDPOINT,
    QUIET,
    REPLACES,
    Deployment,
    known_ids,
    made_by,
    matched,
    replaced_by,
)
from service.stripe_account.endpoint_wanted import WantedEndpoint

QUIET_EVENT: Final = "topup.reversed"
"""All that a second endpoint gets until receivers know its secret. Stripe takes no empty list, tells the secret only
once the endpoint is there, and delivers from that moment on; so it is a type that next to no account ever has, that
every API version knows, and whose refusal, should it come to one, Stripe makes good by its next attempt.
"""


class RollRefused(Exception):
    """It cannot be done as things stand; the message says what can."""


class RollStage(StrEnum):
    """Where a roll stands."""

    NONE = "none"
    """There is none under way."""
    BEGUN = "begun"
    """A second endpoint is being made; whether it has been is not known."""
    ROLLED = "rolled"
    """The secret was rolled in the dashboard: one endpoint, more than one secret."""
    PREPARED = "prepared"
    """A second endpoint is there, and its secret is kept; it gets no events until receivers know that."""
    REPLACED = "replaced"
    """A second endpoint takes the same events."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the roll of an endpoint's secret stands."""

    name: str
    stage: RollStage
    fingerprints: tuple[str, ...]
    """Of the secrets that are kept, the newest first."""
    endpoint_id: str | None
    """The endpoint of the newest secret, where that is known."""
    replaced: tuple[str, ...]
    """The endpoints that it has taken over from and that are still enabled."""


def standing(name: str, kept: EndpointCredentials, listed: Sequence[WebhookEndpoint] | None) -> Standing:
    """Where it stands, by what is kept and, unless that is None, what Stripe lists."""
    endpoint_id = kept.signing[0].webhook_endpoint_id if kept.signing else None
    # A secret that is not known to be another endpoint's is the same one's.
    others = set(known_ids(kept)) - {endpoint_id} if endpoint_id is not None else set()
    replaced: tuple[str, ...] = ()
    newest = next((each for each in listed or () if each.id == endpoint_id), None)
    if listed is not None:
        old = others | (replaced_by(newest.metadata) if newest is not None else frozenset())
        replaced = tuple(each.id for each in listed if each.id in old and each.enabled)
    if kept.creation is not None and REPLACES in kept.creation.params.metadata:
        stage = RollStage.BEGUN
    elif newest is not None and QUIET in newest.metadata:
        stage = RollStage.PREPARED
    elif replaced or others:
        stage = RollStage.REPLACED
    else:
        stage = RollStage.ROLLED if len(kept.signing) > 1 else RollStage.NONE
    return Standing(name, stage, tuple(fingerprint(each.value) for each in kept.signing), endpoint_id, replaced)


def with_rolled(name: str, kept: EndpointCredentials, secret: Secret, now: datetime) -> EndpointCredentials:
    """With the new secret of an endpoint that was rolled in the dashboard, before those that it has.

    The same again changes nothing. Raises `RollRefused` for one that it has as an older one, and while another endpoint
    takes its place.
    """
    if not kept.signing:
        raise RollRefused(f"{name} has no signing secret that this could take the place of: `secrets set` keeps one")
    if kept.signing[0].value == secret:
        return kept
    if any(each.value == secret for each in kept.signing):
        raise RollRefused(
            f"{name}: this is the old signing secret ({fingerprint(secret)}), not the one that replaces it"
        )
    if standing(name, kept, None).stage in {RollStage.BEGUN, RollStage.REPLACED}:
        raise RollRefused(f"{name}: another endpoint is taking its place; `endpoints roll {name} --finish` ends that")
    return kept.with_signing(SigningSecret(secret, now, kept.signing[0].webhook_endpoint_id))


async def prepare(wanted: WantedEndpoint, registration: Registration, deployment: Deployment) -> Standing:
    """Make a second endpoint that can take over from the present one, and keep its secret as the newest.

    It gets no events yet: that is `take_over`. The same again changes nothing while a roll is under way. Its API
    version is the configuration's, else the old one's. Raises `RollRefused`, and as `Registration.create` does.
    """
    name = wanted.name
    listed = await registration.endpoints.all()
    kept = (await registration.credentials()).of(name)
    if kept.creation is not None and kept.creation.repeatable(registration.clock.now()):
        if await _repeated(name, registration, kept, listed):
            return await _standing(name, registration)
        kept = (await registration.credentials()).of(name)
    # A creation that cannot be repeated is replaced by the next one, and so is a second endpoint that is gone.
    kept = _without_gone(kept, listed)
    now = standing(name, replace(kept, creation=None), listed)
    if now.stage in {RollStage.PREPARED, RollStage.REPLACED}:
        return now
    if now.stage is RollStage.ROLLED:
        raise RollRefused(f"{name}: its secret is being rolled already; `endpoints roll {name} --finish` ends that")
    credentials = await registration.credentials()
    current = matched({name: wanted.url}, listed, credentials, deployment).get(name)
    if current is None:
        raise RollRefused(f"{name} is not at Stripe: `endpoints apply {name}` makes it")
    await registration.keep(name, _of_endpoint(kept, current.id))
    own = deployment.own(listed, credentials)
    ours = [each.id for each in listed if each.enabled and each.id in own and each.metadata[ENDPOINT] == name]
    old = dict.fromkeys((current.id, *ours))
    params = wanted.params(api_version=current.api_version, metadata={REPLACES: ",".join(old), QUIET: "yes"})
    await registration.create(name, replace(params, enabled_events=(QUIET_EVENT,)))
    return await _standing(name, registration)


async def take_over(wanted: WantedEndpoint, endpoint_id: str, endpoints: WebhookEndpoints) -> None:
    """Have the second endpoint get its events, beside the old one; receivers are to know its secret by now."""
    # In one request, so that it is either prepared or takes over.
    await endpoints.update(endpoint_id, enabled_events=wanted.events, metadata={QUIET: ""})


async def finish(
    standing: Standing,
    store: CredentialStore,
    endpoints: WebhookEndpoints | None,
    *,
    settled: Callable[[], Awaitable[None]],
) -> None:
    """Switch the old endpoints off and keep the newest secret only. `endpoints` is needed to switch off.

    `settled` returns when what was under way as they were switched off has arrived. Raises `RollRefused` where the
    newest endpoint does not take over.
    """
    name = standing.name
    if standing.stage is RollStage.BEGUN:
        raise RollRefused(f"{name}: the second endpoint is not known to be there: `endpoints roll {name} --replace`")
    if standing.stage is RollStage.PREPARED:
        raise RollRefused(
            f"{name}: {standing.endpoint_id}, which is to take over, gets no events yet: `endpoints roll {name}"
            " --replace` goes on"
        )
    if standing.stage is RollStage.REPLACED and endpoints is not None:
        await _switch_off(standing, endpoints)
        if standing.replaced:
            await settled()
    credentials = await asyncio.to_thread(store.read)
    kept = credentials.of(name)
    if len(kept.signing) > 1:
        await asyncio.to_thread(store.write, credentials.having(name, kept.with_newest_signing_only()))


async def _switch_off(standing: Standing, endpoints: WebhookEndpoints) -> None:
    name, listed = standing.name, await endpoints.all()
    newest = next((each for each in listed if each.id == standing.endpoint_id), None)
    if newest is None or not newest.enabled:
        is_not, way_out = (
            ("there any more", f"endpoints roll {name} --replace` makes another")
            if newest is None
            else ("enabled", f"endpoints enable {name}` switches it on")
        )
        raise RollRefused(
            f"{name}: {standing.endpoint_id}, which is to take over, is not {is_not} at Stripe: the old one stays on;"
            f" `{way_out}"
        )
    for each in standing.replaced:
        with suppress(StripeObjectMissing):
            await endpoints.update(each, enabled=False)


async def _repeated(
    name: str, registration: Registration, kept: EndpointCredentials, listed: Sequence[WebhookEndpoint]
) -> bool:
    """Repeat a creation that is under way; whether its secret is known now."""
    if kept.creation is None:
        return False
    made = made_by(kept.creation, listed)
    try:
        return await registration.repeat(name, kept.creation, made) is not None
    except SecretNotTold:
        return False
    except StripeUnavailable:
        # Stripe repeats for a day that it failed, although it made the endpoint. Another one is what was asked for.
        if made is None:
            raise
        return False


async def _standing(name: str, registration: Registration) -> Standing:
    listed = await registration.endpoints.all()
    return standing(name, (await registration.credentials()).of(name), listed)


def _without_gone(kept: EndpointCredentials, listed: Sequence[WebhookEndpoint]) -> EndpointCredentials:
    """Without the newest secrets of endpoints that are deleted, where one that is there has a secret too."""
    there = {each.id for each in listed}
    ids = [each.webhook_endpoint_id for each in kept.signing]
    first = next((place for place, each in enumerate(ids) if each in there), 0)
    gone = None not in ids[:first]
    return replace(kept, signing=kept.signing[first:]) if gone else kept


def _of_endpoint(kept: EndpointCredentials, endpoint_id: str) -> EndpointCredentials:
    """With the endpoint of secrets that are not known to be any's."""
    signing = (replace(each, webhook_endpoint_id=each.webhook_endpoint_id or endpoint_id) for each in kept.signing)
    return replace(kept, signing=tuple(signing))
