"""What is said of keys: what they have, lack and need not have, and what cannot be told."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.config import Config, EndpointConfig, ReconcileConfig
from service.errors import StripeApiError, StripeKeyRefused, StripeUnavailable
from service.events import Secret
from service.stripe_account.keys_check import Report, Verdict, check
from service.stripe_account.needs import KeyNeeds, needs_of
from service.stripe_account.permission_probe import Probed
from service.stripe_account.scopes import SCOPES

PROMISE_5 = "promise 5 is off: gaps are not found, until reconcile.api_key_file names a key that may read events"


@dataclass
class MemoryProbe:
    """A key that has some scopes; of others it cannot be told, and some end it all."""

    scopes: Collection[str] = SCOPES
    unclear: Mapping[str, str] = field(default_factory=dict)
    fails: Mapping[str, StripeApiError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    async def probe(self, scope: str) -> Probed:
        self.asked.append(scope)
        await asyncio.sleep(0)
        if scope in self.fails:
            raise self.fails[scope]
        if scope in self.unclear:
            return Probed(scope, None, self.unclear[scope])
        return Probed(scope, scope in self.scopes, None if scope in self.scopes else "Stripe says no")


def endpoint(name: str = "shop", key: str = "rk_test_1", *permissions: str) -> EndpointConfig:
    events = ("payment_intent.succeeded",)
    return EndpointConfig(name=name, mode="test", events=events, api_key=Secret(key), permissions=permissions)


def config(*endpoints: EndpointConfig, interval: int = 0) -> Config:
    return Config(endpoints=endpoints, reconcile=ReconcileConfig(interval_seconds=interval))


async def checked(configuration: Config, *probes: MemoryProbe, surplus: bool = False) -> Report:
    needs = needs_of(configuration)
    by_key = dict(zip((key.key for key in needs.keys), probes, strict=True))

    @asynccontextmanager
    async def probing(key: KeyNeeds) -> AsyncIterator[MemoryProbe]:
        try:
            yield by_key[key.key]
        finally:
            by_key[key.key].closed = True

    return await check(needs, probing, surplus=surplus)


def verdicts(report: Report) -> dict[str, str]:
    return {each.need.scope: each.verdict for key in report.keys for each in key.found}


async def test_a_key_that_has_everything_is_right() -> None:
    report = await checked(config(endpoint()), probe := MemoryProbe())

    assert set(verdicts(report).values()) == {Verdict.HAS}
    assert (report.wrong(), report.notes()) == ([], [])
    assert not any((report.refused, report.incomplete, report.lacking))
    assert probe.closed


async def test_what_is_not_required_is_told_and_not_wrong() -> None:
    report = await checked(config(endpoint()), MemoryProbe(scopes=()))

    assert set(verdicts(report).values()) == {Verdict.LACKS}
    assert report.wrong() == []
    assert not report.lacking


async def test_what_is_required_is_wrong_by_its_scope_and_its_name_in_the_dashboard() -> None:
    report = await checked(
        config(endpoint("shop", "rk_test_1", "payment_intent_write")), MemoryProbe(scopes={"event_read"})
    )

    assert report.lacking
    (said,) = report.wrong()
    assert said == (
        "endpoints (shop).api_key: lacks payment_intent_write (PaymentIntents Write):"
        " endpoints (shop).permissions asks for it"
    )


async def test_where_nobody_may_read_events_promise_5_is_off() -> None:
    report = await checked(config(endpoint(), interval=900), MemoryProbe(scopes=()))

    (said,) = report.wrong()
    assert said.startswith(f"endpoints (shop).api_key: lacks event_read (Events Read): {PROMISE_5};")


async def test_what_cannot_be_told_is_no_yes() -> None:
    report = await checked(
        config(endpoint("shop", "rk_test_1", "plan_read")), MemoryProbe(unclear={"plan_read": "Stripe answered 400"})
    )

    assert verdicts(report)["plan_read"] == Verdict.UNKNOWN
    assert report.lacking
    (said,) = report.wrong()
    assert "plan_read (Prices Read) cannot be told (Stripe answered 400)" in said


async def test_a_key_that_stripe_refuses_is_presented_once() -> None:
    scope = "event_read"  # the first that is tried
    refusing = MemoryProbe(fails={scope: StripeKeyRefused("Stripe refuses the API key: it has expired")})
    other = MemoryProbe()
    report = await checked(config(endpoint(), endpoint("other", "rk_test_2")), refusing, other)

    assert refusing.asked == [scope]
    assert refusing.closed
    assert report.refused
    assert report.wrong() == ["endpoints (shop).api_key: Stripe refuses the API key: it has expired"]
    # Another key is another matter.
    assert len(report.keys[1].found) == len(other.asked) == 4


async def test_a_key_that_is_refused_in_between_is_refused() -> None:
    report = await checked(config(endpoint()), MemoryProbe(fails={"webhook_read": StripeKeyRefused("rolled")}))

    assert report.refused
    assert report.keys[0].found == ()


async def test_once_stripe_is_away_nothing_more_is_asked() -> None:
    away, never = MemoryProbe(fails={"event_read": StripeUnavailable("no answer")}), MemoryProbe()
    report = await checked(config(endpoint(), endpoint("other", "rk_test_2")), away, never)

    assert never.asked == []
    assert report.incomplete
    assert not report.lacking
    assert report.wrong() == ["endpoints (shop).api_key: no answer", "endpoints (other).api_key: no answer"]


async def test_a_secret_key_does_and_a_restricted_one_is_recommended() -> None:
    report = await checked(config(endpoint("shop", "sk_test_1")), probe := MemoryProbe(), surplus=True)

    (note,) = report.notes()
    assert note.startswith("endpoints (shop).api_key: is a secret key, which may do everything")
    assert "rk_test_" in note
    assert not report.lacking
    assert len(probe.asked) == 4  # that it may do the rest is known


async def test_what_is_beyond_need_is_only_looked_for_when_asked() -> None:
    has = {"event_read", "webhook_read", "webhook_write", "payment_intent_read", "customer_read", "customer_write"}
    quiet = await checked(config(endpoint()), MemoryProbe(scopes=has))
    asked = await checked(config(endpoint()), probe := MemoryProbe(scopes={*has, "plan_read"}), surplus=True)

    assert quiet.notes() == []
    # Who may write customers may read them: that is one surplus, not two.
    (said,) = asked.notes()
    assert said == (
        "endpoints (shop).api_key: may do more than anything here needs: customer_write (Customers Write),"
        " plan_read (Prices Read)"
    )
    assert sorted(probe.asked) == sorted(SCOPES)


async def test_reading_is_no_surplus_where_writing_is_needed() -> None:
    needed = config(endpoint("shop", "rk_test_1", "customer_write"))
    report = await checked(
        needed,
        MemoryProbe(scopes={"event_read", "webhook_write", "payment_intent_read", "customer_read", "customer_write"}),
        surplus=True,
    )

    assert report.notes() == []


async def test_a_key_that_nothing_uses_is_not_tried() -> None:
    unused = Config(endpoints=(endpoint(),), reconcile=ReconcileConfig(api_key=Secret("rk_live_1"), interval_seconds=0))
    report = await checked(unused, MemoryProbe(), probe := MemoryProbe())

    assert probe.asked == []
    assert report.notes() == [
        "reconcile.api_key: is used by nothing: no endpoint takes live events of an account of its own"
    ]
    assert not report.lacking


async def test_an_endpoint_without_a_key_is_wrong_or_worth_a_note() -> None:
    without = EndpointConfig(name="shop", mode="test")
    for interval in (0, 900):
        report = await checked(config(without, interval=interval))

        said = [f"endpoints (shop): no key reads its events: {PROMISE_5}"]
        assert (report.wrong(), report.notes()) == ((said, []) if interval else ([], said))
        assert report.lacking is bool(interval)


async def test_no_key_is_in_what_is_said_or_shown() -> None:
    report = await checked(config(endpoint("shop", "sk_test_51Secret", "plan_read")), MemoryProbe(scopes=()))

    assert "51Secret" not in "".join((*report.wrong(), *report.notes(), repr(report)))
