"""What an API key may do, found out by calls that do nothing."""

from dataclasses import dataclass
from typing import Final

import msgspec

from service.errors import StripeObjectMissing, StripePermissionMissing, StripeRequestRefused
from service.stripe_account.calling import Answer, PathUnknown, StripeCaller, decoded
from service.stripe_account.scopes import RESOURCES, Resource


@dataclass(frozen=True, slots=True)
class Probed:
    """Whether a key has a scope; `has` is None where the answer does not say so, and `why` what was said instead."""

    scope: str
    has: bool | None
    why: str | None = None


class _Listing(msgspec.Struct):
    data: list[msgspec.Raw]


_listing: Final = msgspec.json.Decoder(_Listing)


class PermissionProbe:
    """Tries one key's scopes, by reading a list, and by changing what cannot be there.

    Calls raise `StripeUnavailable` and `StripeKeyRefused`, which are about the key and not about a scope.
    """

    def __init__(self, caller: StripeCaller) -> None:
        self._caller = caller

    async def has(self, scope: str) -> bool | None:
        """Whether the key has it; None where that cannot be told: `probe` says why."""
        return (await self.probe(scope)).has

    async def probe(self, scope: str) -> Probed:
        """Whether the key has it, and what Stripe said where that is no plain yes. To write is to read."""
        name, _, access = scope.rpartition("_")
        resource = RESOURCES.get(name)
        if resource is None or access not in {"read", "write"}:
            return Probed(scope, None, "no harmless call is known that would show it")
        try:
            return await (self._reads(scope, resource) if access == "read" else self._writes(scope, resource))
        except StripePermissionMissing as lacking:
            return Probed(scope, False, str(lacking))
        except (StripeObjectMissing, StripeRequestRefused) as refused:
            return Probed(scope, None, str(refused))

    async def _reads(self, scope: str, resource: Resource) -> Probed:
        await self._caller.get(resource.list_path, {"limit": 1}, _read)
        return Probed(scope, True)

    async def _writes(self, scope: str, resource: Resource) -> Probed:
        try:
            await self._caller.post(resource.missing_path, {}, _changed)
        except PathUnknown:
            raise
        except StripeObjectMissing:
            return Probed(scope, True)
        return Probed(scope, None, f"POST {resource.missing_path}: Stripe has taken a change of what cannot exist")


def _read(answer: Answer) -> None:
    decoded(_listing, answer.text)


def _changed(_: Answer) -> None:
    """Nothing of it is wanted."""
