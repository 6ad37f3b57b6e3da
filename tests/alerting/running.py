"""One scenario played: everything is well, the fault is injected, the alert fires, and what else fires is noted."""

import asyncio
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from tests.alerting.scaling import compressed, seconds_of
from tests.alerting.scenarios import Scenario
from tests.alerting.world import RECEIVER, ROOT, SECOND, WATCHDOG, Servers, World, ended, world

RUNBOOKS: Final = ROOT / "deploy" / "runbooks"
FIRE_SECONDS_MAX: Final = 120.0
SETTLE_SECONDS: Final = 8.0
"""How long it is watched after the alert has fired: what follows from a fault may take a little longer."""
LOOK_SECONDS: Final = 0.5
_FRONT_MATTER: Final = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Played:
    """What came of a scenario."""

    scenario: Scenario
    fired_after_seconds: float | None
    others: frozenset[str]
    """What else fired."""
    problem: str | None = None
    """Why there is nothing to tell."""

    @property
    def unlisted(self) -> frozenset[str]:
        """What should not have fired: neither a consequence of this alert, nor of another that lists this one.

        An alert on an objective is itself the consequence of most faults: the alert on the cause is its explanation,
        and explains what else follows.
        """
        explained = consequences(self.scenario.alert)
        for other in self.others:
            if self.scenario.alert in (follow := consequences(other)):
                explained |= {other} | follow
        return self.others - explained

    @property
    def well(self) -> bool:
        """Whether the alert fired, and nothing that is not a consequence."""
        return self.problem is None and self.fired_after_seconds is not None and not self.unlisted


@cache
def consequences(alert: str) -> frozenset[str]:
    """What may fire with an alert, by the front matter of its runbook."""
    match = _FRONT_MATTER.match((RUNBOOKS / f"{alert}.md").read_text("utf-8"))
    assert match is not None, f"{alert}: its runbook has no front matter"
    return frozenset(yaml.safe_load(match[1]).get("consequences") or ())


async def play(scenario: Scenario, on: Servers, prefix: str) -> Played:
    """Play one, in a deployment of its own."""
    with tempfile.TemporaryDirectory(prefix="alerting-") as folder:
        try:
            async with world(
                Path(folder), on, prefix, settings=_settings(scenario, on), prepare=scenario.prepare,
                receivers=(RECEIVER, SECOND) if scenario.second else (RECEIVER,), stretch=scenario.stretch,
            ) as here:  # fmt: skip
                return await _observed(scenario, here)
        except AssertionError as failed:
            return Played(scenario, None, frozenset(), problem=str(failed))


def _settings(scenario: Scenario, on: Servers) -> Mapping[str, str]:
    redis = {"STRIPE_INGEST__DEDUPE__URL": on.redis.url, "STRIPE_INGEST__DEDUPE__TIMEOUT_SECONDS": "0.1"}
    return {**(redis if scenario.redis else {}), **scenario.settings}


async def _observed(scenario: Scenario, here: World) -> Played:
    await asyncio.sleep(compressed(seconds_of(scenario.warm_up), scenario.stretch))
    loop = asyncio.get_running_loop()
    began = loop.time()
    fault = asyncio.create_task(_injected(scenario, here))
    fired_at: float | None = None
    seen: set[str] = set()
    try:
        while loop.time() < (began + FIRE_SECONDS_MAX if fired_at is None else fired_at + SETTLE_SECONDS):
            if fault.done():
                fault.result()  # a fault that could not be injected
            firing = await here.prometheus.firing()
            seen |= firing
            if fired_at is None and scenario.alert in firing:
                fired_at = loop.time()
            await asyncio.sleep(LOOK_SECONDS)
        broken = await here.prometheus.broken_rules()
    finally:
        await ended(fault)
    return Played(
        scenario,
        None if fired_at is None else fired_at - began,
        frozenset(seen - {WATCHDOG, scenario.alert}),
        problem=f"rules that cannot be evaluated: {broken}" if broken else None,
    )


async def _injected(scenario: Scenario, here: World) -> None:
    await scenario.step(here)


def table(played: Sequence[Played]) -> str:
    """The outcomes, as a table in Markdown."""
    lines = ["| alert | fault | fired after | also fired | verdict |", "|---|---|---|---|---|"]
    for each in sorted(played, key=lambda one: one.scenario.alert):
        after = "never" if each.fired_after_seconds is None else f"{each.fired_after_seconds:.0f} s"
        also = ", ".join(_short(name) for name in sorted(each.others)) or "nothing"
        verdict = "as listed" if each.well else each.problem or "did not fire"
        if each.unlisted:
            verdict = "not listed: " + ", ".join(_short(name) for name in sorted(each.unlisted))
        lines.append(f"| {_short(each.scenario.alert)} | {each.scenario.fault} | {after} | {also} | {verdict} |")
    return "\n".join(lines)


def _short(alert: str) -> str:
    return alert.removeprefix("StripeIngest")
