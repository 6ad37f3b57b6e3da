"""What the configuration's API keys may do, against what they need."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from service.errors import StripeApiError, StripeKeyRefused, StripeUnavailable
from service.stripe_account.needs import KeyMissing, KeyNeeds, Need, Needs
from service.stripe_account.permission_probe import Probed
from service.stripe_account.scopes import SCOPES, labelled


class Probe(Protocol):
    """Tries the scopes of one key, and changes nothing."""

    async def probe(self, scope: str) -> Probed:
        """Whether the key has it. Raises `StripeUnavailable` and `StripeKeyRefused`."""
        ...


Probing: TypeAlias = Callable[[KeyNeeds], AbstractAsyncContextManager[Probe]]
"""Opens the probe of a key."""


class Verdict(StrEnum):
    """Whether a key has a scope, for people and scripts."""

    HAS = "has"
    LACKS = "lacks"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CheckedNeed:
    """A permission that a key needs, and whether it has it; `why` is what Stripe said where it is no plain yes."""

    need: Need
    verdict: Verdict
    why: str | None

    @property
    def wrong(self) -> bool:
        """Whether it is required, and not known to be there."""
        return self.need.required and self.verdict is not Verdict.HAS

    def said(self, setting: str) -> str:
        """What is wrong, in a sentence."""
        what = "; ".join(use.without for use in self.need.uses)
        if self.verdict is Verdict.UNKNOWN:
            return f"{setting}: whether it has {labelled(self.need.scope)} cannot be told ({self.why}); without, {what}"
        return f"{setting}: lacks {labelled(self.need.scope)}: {what}"


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """A key, and what was found. `failed` is why nothing was: Stripe refuses the key, or was not reached."""

    key: KeyNeeds
    found: tuple[CheckedNeed, ...] = ()
    surplus: tuple[str, ...] = ()
    """Scopes that it has, and nothing needs."""
    failed: StripeApiError | None = None

    def wrong(self) -> Iterator[str]:
        """What is wrong, a sentence each."""
        if self.failed is not None:
            yield f"{self.key.setting}: {self.failed}"
        for each in self.found:
            if each.wrong:
                yield each.said(self.key.setting)

    def notes(self) -> Iterator[str]:
        """What is worth knowing, and not wrong."""
        setting = self.key.setting
        if not self.key.needs:
            yield f"{setting}: is used by nothing: no endpoint takes {self.key.mode} events of an account of its own"
        elif self.found and not self.key.restricted:
            yield (
                f"{setting}: is a secret key, which may do everything: a restricted key (rk_{self.key.mode}_…) with the"
                " permissions above does as well, and harms less in wrong hands"
            )
        if self.surplus:
            yield f"{setting}: may do more than anything here needs: {', '.join(map(labelled, self.surplus))}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of all keys, and which there should be."""

    keys: tuple[CheckedKey, ...]
    missing: tuple[KeyMissing, ...]

    def wrong(self) -> Sequence[str]:
        """What is wrong, a sentence each."""
        said = [sentence for key in self.keys for sentence in key.wrong()]
        return said + [each.said for each in self.missing if each.required]

    def notes(self) -> Sequence[str]:
        """What is worth knowing, and not wrong."""
        said = [sentence for key in self.keys for sentence in key.notes()]
        return said + [each.said for each in self.missing if not each.required]

    @property
    def refused(self) -> bool:
        """Whether Stripe refuses a key altogether."""
        return any(isinstance(key.failed, StripeKeyRefused) for key in self.keys)

    @property
    def incomplete(self) -> bool:
        """Whether Stripe was not reached, so that there may be more."""
        return any(isinstance(key.failed, StripeUnavailable) for key in self.keys)

    @property
    def lacking(self) -> bool:
        """Whether something that is required is not there."""
        return any(each.wrong for key in self.keys for each in key.found) or any(each.required for each in self.missing)


async def check(needs: Needs, probing: Probing, *, surplus: bool = False) -> Report:
    """Try what the keys need, and with `surplus` everything else that a restricted key may be allowed.

    Once Stripe cannot be reached, the keys that are left are not tried.
    """
    checked: list[CheckedKey] = []
    away: StripeUnavailable | None = None
    for key in needs.keys:
        if away is None:
            one = await _check_key(key, probing, surplus=surplus)
            away = one.failed if isinstance(one.failed, StripeUnavailable) else None
        else:
            one = CheckedKey(key, failed=away)
        checked.append(one)
    return Report(tuple(checked), needs.missing)


async def _check_key(key: KeyNeeds, probing: Probing, *, surplus: bool) -> CheckedKey:
    if not key.needs:
        return CheckedKey(key)
    needed = [need.scope for need in key.needs]
    others = [scope for scope in SCOPES if scope not in needed] if surplus and key.restricted else []
    try:
        async with probing(key) as probe:
            probed = await _probed(probe, (*needed, *others))
    except (StripeKeyRefused, StripeUnavailable) as failed:
        return CheckedKey(key, failed=failed)
    return CheckedKey(
        key,
        found=tuple(CheckedNeed(need, _verdict(probed[need.scope]), probed[need.scope].why) for need in key.needs),
        surplus=tuple(_unneeded([scope for scope in others if probed[scope].has], needed)),
    )


async def _probed(probe: Probe, scopes: Sequence[str]) -> dict[str, Probed]:
    """All of them at once, but the first: a key that Stripe refuses is presented once."""
    first = await probe.probe(scopes[0])
    try:
        async with asyncio.TaskGroup() as probing:
            tasks = [probing.create_task(probe.probe(scope)) for scope in scopes[1:]]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return dict(zip(scopes, (first, *(task.result() for task in tasks)), strict=True))


def _verdict(probed: Probed) -> Verdict:
    if probed.has is None:
        return Verdict.UNKNOWN
    return Verdict.HAS if probed.has else Verdict.LACKS


def _unneeded(has: Sequence[str], needed: Sequence[str]) -> Iterator[str]:
    """Without the reading that comes with writing."""
    for scope in has:
        resource, _, access = scope.rpartition("_")
        if access == "write" or f"{resource}_write" not in {*has, *needed}:
            yield scope
