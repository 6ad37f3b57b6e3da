"""What a configuration's keys need: which permission, what for, and what is wrong without it."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from service.config import Config, EndpointConfig, ReconcileConfig, StripeConfig
from service.errors import ConfigurationError
from service.events import Secret
from service.ports import StripeList
from service.recovery.snapshots import LISTS
from service.stripe_account.client import _LISTS as PATHS
from service.stripe_account.needs import _LISTED_AS, KeyNeeds, Needs, needs_of
from service.stripe_account.scopes import RESOURCES, SCOPES

KEY = "rk_test_51Shop"
PROMISE_5 = "promise 5 is off: gaps are not found, until"


def endpoint(name: str = "shop", **settings: Any) -> EndpointConfig:
    given = {"mode": "test", "events": ("payment_intent.succeeded",), "api_key": KEY} | settings
    if given["api_key"] is not None:
        given["api_key"] = Secret(given["api_key"])
    return EndpointConfig(name=name, **given)


def config(*endpoints: EndpointConfig, events_key: str | None = None, interval: int = 900, watch: int = 900) -> Config:
    return Config(
        endpoints=endpoints,
        stripe=StripeConfig(watch_interval_seconds=watch),
        reconcile=ReconcileConfig(
            api_key=None if events_key is None else Secret(events_key), interval_seconds=interval
        ),
    )


def scopes(key: KeyNeeds) -> dict[str, bool]:
    """Each scope that it needs, and whether that is required."""
    return {need.scope: need.required for need in key.needs}


def without(key: KeyNeeds, scope: str) -> list[str]:
    (need,) = (need for need in key.needs if need.scope == scope)
    return [use.without for use in need.uses]


def only(needs: Needs) -> KeyNeeds:
    (key,) = needs.keys
    return key


def test_a_key_is_for_the_endpoint_the_events_and_the_objects_of_the_events() -> None:
    key = only(needs_of(config(endpoint(events=("payment_intent.succeeded", "charge.refunded")))))

    assert key.setting == "endpoints (shop).api_key"
    assert (key.mode, key.endpoints, key.restricted) == ("test", ("shop",), True)
    assert scopes(key) == {
        "charge_read": False,
        "event_read": True,
        "payment_intent_read": False,
        "webhook_read": False,
        "webhook_write": False,
    }


def test_what_the_endpoint_asks_for_is_required() -> None:
    asked = ("payment_intent_write", "webhook_write", "customer_portal_read", "payment_intent_write")
    key = only(needs_of(config(endpoint(permissions=asked))))

    assert {scope for scope, required in scopes(key).items() if required} == {*asked, "event_read"}
    assert without(key, "payment_intent_write") == ["endpoints (shop).permissions asks for it"]
    assert len(without(key, "webhook_write")) == 2


def test_nobody_reading_events_is_wrong_unless_gaps_are_only_looked_for_on_demand() -> None:
    for interval, required in ((900, True), (0, False)):
        key = only(needs_of(config(endpoint(), interval=interval)))

        assert scopes(key)["event_read"] is required
        said = f"{PROMISE_5} reconcile.api_key_file names a key that may read events"
        assert said in without(key, "event_read")


def test_a_key_for_events_takes_that_from_the_endpoints_keys() -> None:
    own, events = needs_of(config(endpoint(), events_key="rk_test_events")).keys

    assert "event_read" not in scopes(own)
    assert (events.setting, events.endpoints, scopes(events)) == ("reconcile.api_key", ("shop",), {"event_read": True})
    assert f"{PROMISE_5} it may read events" in without(events, "event_read")


def test_a_key_for_events_of_one_mode_leaves_the_other_mode_to_its_own_key() -> None:
    both = config(endpoint(), endpoint("live", mode="live", api_key="rk_live_1"), events_key="rk_live_events")
    test, live, events = needs_of(both).keys

    assert "event_read" in scopes(test)
    assert f"{PROMISE_5} it may read events" in without(test, "event_read")
    assert "event_read" not in scopes(live)
    assert events.endpoints == ("live",)


def test_a_key_for_events_that_is_an_endpoints_own_is_one_key() -> None:
    key = only(needs_of(config(endpoint(), events_key=KEY)))

    assert key.setting == "endpoints (shop).api_key and reconcile.api_key"
    assert {"event_read", "webhook_write"} <= scopes(key).keys()


def test_a_key_for_events_that_no_endpoint_takes_is_unused() -> None:
    _, unused = needs_of(config(endpoint(), events_key="rk_live_events")).keys

    assert (unused.setting, unused.mode, unused.needs) == ("reconcile.api_key", "live", ())


def test_where_one_key_cannot_read_all_accounts_none_is_asked_for() -> None:
    two = config(endpoint(account="acct_1"), endpoint("other", account="acct_2", api_key="rk_test_other"))

    for key in needs_of(two).keys:
        assert f"{PROMISE_5} it may read events" in without(key, "event_read")


def test_a_key_of_several_endpoints_is_one_key_with_the_needs_of_all() -> None:
    key = only(
        needs_of(
            config(
                endpoint("paid", events=("invoice.paid",), permissions=("customer_read", "plan_read")),
                endpoint("ended", events=("customer.subscription.deleted",), permissions=("customer_read",)),
            )
        )
    )

    assert key.setting == "endpoints (paid, ended).api_key"
    assert {"invoice_read", "subscription_read", "customer_read", "plan_read"} <= scopes(key).keys()
    assert without(key, "customer_read") == ["endpoints (paid, ended).permissions asks for it"]
    assert without(key, "plan_read") == ["endpoints (paid).permissions asks for it"]


@pytest.mark.parametrize("events", [(), ("*",)])
def test_who_takes_everything_makes_use_of_every_list(events: tuple[str, ...]) -> None:
    key = only(needs_of(config(endpoint(events=events))))

    said = " ".join(each for need in key.needs for use in need.uses for each in (use.purpose,))
    assert set(re.findall(r"`backfill (\w+)`", said)) == set(get_args(StripeList))
    assert not any(required for scope, required in scopes(key).items() if scope != "event_read")


def test_every_list_has_a_permission_and_the_path_that_it_is_tried_on() -> None:
    assert set(_LISTED_AS) == set(get_args(StripeList)) == set(LISTS.values())
    for name, resource in _LISTED_AS.items():
        assert resource in RESOURCES
        if name != "invoice_payments":  # Stripe has no permission of their own for them
            assert RESOURCES[resource].list_path == PATHS[name].path


def test_events_of_no_list_need_nothing_to_be_read() -> None:
    key = only(needs_of(config(endpoint(events=("payout.paid",)))))

    assert set(scopes(key)) == {"event_read", "webhook_read", "webhook_write"}


def test_watching_is_named_where_it_is_on() -> None:
    for watch, count in ((900, 2), (0, 1)):
        key = only(needs_of(config(endpoint(), watch=watch)))

        assert len(without(key, "webhook_read")) == count


def test_a_key_of_connected_accounts_endpoints_is_for_those_endpoints_only() -> None:
    needs = needs_of(config(endpoint(connect=True, mode=None)))

    assert set(scopes(only(needs))) == {"webhook_read", "webhook_write"}
    assert needs.missing == ()


def test_an_endpoint_without_a_key_has_nobody_who_finds_its_gaps() -> None:
    for interval, required in ((900, True), (0, False)):
        needs = needs_of(config(endpoint(api_key=None), interval=interval))

        assert needs.keys == ()
        assert [(each.endpoint, each.required) for each in needs.missing] == [("shop", required)]
        assert needs.missing[0].said == (
            f"endpoints (shop): no key reads its events: {PROMISE_5} reconcile.api_key_file names a key that may read"
            " events"
        )


def test_an_endpoint_without_a_key_is_told_of_its_own_one_where_the_other_cannot_help() -> None:
    (missing,) = needs_of(config(endpoint(api_key=None), events_key="rk_live_1")).missing

    assert f"{PROMISE_5} its api_key_file names a key that may read events" in missing.said


def test_an_endpoint_without_a_key_lacks_what_it_asks_for() -> None:
    needs = needs_of(config(endpoint(api_key=None, permissions=("plan_read",)), interval=0))

    said = [each.said for each in needs.missing if each.required]
    assert said == [
        "endpoints (shop).api_key: is needed: endpoints (shop).permissions asks for plan_read (Prices Read)"
    ]


def test_with_neither_keys_nor_endpoints_nothing_is_needed() -> None:
    assert needs_of(config()) == Needs((), ())


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("webhooks_write", "webhook_write"),
        ("webhook_endpoint_read", "webhook_read"),
        ("price_read", "plan_read"),
        ("prices_write", "plan_write"),
        ("billing_portal_write", "customer_portal_write"),
        ("rak_event_read", "event_read"),
        ("Checkout Sessions Write", "checkout_session_write"),
        ("checkout.session_write", "checkout_session_write"),
        ("payment_intents_read", "payment_intent_read"),
        ("costumer_read", "customer_read"),
        ("customer", "customer_read or customer_write"),
        ("subscripton_write", "subscription_write"),
    ],
)
def test_an_unknown_permission_is_refused_with_what_was_meant(named: str, meant: str) -> None:
    with pytest.raises(
        ConfigurationError, match=re.escape(f"endpoints (shop).permissions: {named} is no permission")
    ) as refused:
        needs_of(config(endpoint(permissions=("event_read", named))))

    assert str(refused.value).endswith(f"is it {meant}?")


def test_a_permission_of_which_nothing_is_like_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(ConfigurationError) as refused:
        needs_of(config(endpoint(permissions=("payout_read",)), endpoint("other", permissions=("event-read",))))

    assert all(resource in str(refused.value) for resource in RESOURCES)
    assert str(refused.value).endswith(
        "; endpoints (other).permissions: event-read is no permission that this version can check; is it event_read?"
    )


def test_every_known_permission_may_be_asked_for() -> None:
    key = only(needs_of(config(endpoint(permissions=SCOPES))))

    assert tuple(scopes(key)) == SCOPES


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("pk_test_1", "is a publishable key (pk_…)"),
        ("sk_org_test_1", "is an organization's key (sk_org_…)"),
        ("sk_org_live_1", "is an organization's key (sk_org_…)"),
        ("whsec_1", "is a signing secret (whsec_…)"),
        ("rk_live_1", "is a live key, and the endpoint's mode is test"),
        ("sk_live_1", "is a live key, and the endpoint's mode is test"),
        ("nonsense", "must be a secret or restricted key"),
    ],
)
def test_what_is_no_key_for_the_endpoint_is_refused_and_not_told(key: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        needs_of(config(endpoint(api_key=key)))

    assert str(refused.value).startswith(f"endpoints (shop).api_key: {said}")
    assert key not in str(refused.value)


def test_a_test_key_on_a_live_endpoint_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is a test key, and the endpoint's mode is live"):
        needs_of(config(endpoint(mode="live")))


def test_a_key_for_events_that_is_none_is_refused() -> None:
    for key, said in (("pk_live_1", "is a publishable key"), ("nonsense", "must be a secret or restricted key")):
        with pytest.raises(ConfigurationError, match=f"reconcile.api_key: {said}"):
            needs_of(config(endpoint(), events_key=key))


def test_all_that_are_no_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"\(shop\).*publishable.*\(other\).*organization"):
        needs_of(config(endpoint(api_key="pk_test_1"), endpoint("other", api_key="sk_org_test_1")))


def test_no_key_is_shown_by_what_is_known_of_it() -> None:
    assert "51Shop" not in repr(needs_of(config(endpoint())))


def test_it_is_judged_without_asking_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", pytest.fail)

    assert needs_of(config(endpoint())).keys
