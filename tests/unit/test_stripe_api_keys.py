"""API keys: their mode, and which endpoints each of them reads for."""

from collections.abc import Sequence

import pytest

from service.config import Config, EndpointConfig, ReconcileConfig
from service.errors import ConfigurationError
from service.events import Mode, Secret
from service.stripe_account.api_keys import KeyedEndpoints, KeyMode, event_keys, mode_of, stripe_keys


def endpoint(name: str, key: str | None = None, *, mode: Mode = "test", account: str | None = None) -> EndpointConfig:
    return EndpointConfig(
        name=name,
        mode=mode,
        account=account,
        secrets=(Secret("whsec_1"),),
        events=("charge.refunded",),
        api_key=None if key is None else Secret(key),
    )


def config(*endpoints: EndpointConfig, events_key: str | None = None) -> Config:
    return Config(
        endpoints=endpoints, reconcile=ReconcileConfig(api_key=None if events_key is None else Secret(events_key))
    )


def told(groups: Sequence[KeyedEndpoints]) -> list[tuple[str, KeyMode, list[str]]]:
    return [(group.key.value, group.mode, [each.name for each in group.endpoints]) for group in groups]


@pytest.mark.parametrize(
    ("key", "mode"),
    [
        ("sk_live_51H", "live"),
        ("rk_live_51H", "live"),
        ("sk_test_51H", "test"),
        ("rk_test_51H_x", "test"),
    ],
)
def test_a_keys_form_says_its_mode(key: str, mode: KeyMode) -> None:
    assert mode_of(Secret(key)) == mode


@pytest.mark.parametrize(
    "key",
    ["", "hunter2", "pk_live_51H", "whsec_51H", "sk_51H", "sk_live_", "sk_live_51H\n", " sk_live_51H", "sk_prod_51H", "sk_live_5 1"],
)  # fmt: skip
def test_what_is_no_secret_or_restricted_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^reconcile\.api_key: must be a secret or restricted key") as refused:
        mode_of(Secret(key), "reconcile.api_key")

    assert "51H" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_endpoints_are_grouped_by_their_keys_in_the_order_of_the_configuration() -> None:
    groups = stripe_keys(
        config(
            endpoint("a", "sk_test_1"),
            endpoint("b", "sk_live_2", mode="live"),
            endpoint("keyless"),
            endpoint("c", "sk_test_1"),
            endpoint("d", "sk_test_1", mode="any"),
        )
    )

    assert told(groups) == [("sk_test_1", "test", ["a", "c", "d"]), ("sk_live_2", "live", ["b"])]
    assert groups[0].endpoints[0].events == ("charge.refunded",)


def test_a_key_of_the_other_mode_than_its_endpoint_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"endpoints \(shop\)\.api_key: is a test key") as refused:
        stripe_keys(config(endpoint("shop", "sk_test_1secret", mode="live")))

    assert "1secret" not in str(refused.value)


def test_a_key_of_the_other_mode_is_refused_beside_a_key_for_the_events_too() -> None:
    with pytest.raises(ConfigurationError, match=r"endpoints \(shop\)\.api_key: is a test key"):
        event_keys(config(endpoint("shop", "sk_test_1", mode="live"), events_key="rk_test_events"))


def test_one_key_of_endpoints_of_several_accounts_is_refused() -> None:
    several = config(
        endpoint("a", "sk_test_1secret", account="acct_1"), endpoint("b", "sk_test_1secret", account="acct_2")
    )
    with pytest.raises(ConfigurationError, match=r"endpoints \(a, b\)\.api_key: is one key.*acct_1, acct_2") as refused:
        stripe_keys(several)
    assert "1secret" not in str(refused.value)

    # An account that is not said may be the one that is.
    one = config(endpoint("a", "sk_test_1", account="acct_1"), endpoint("unsaid", "sk_test_1"))
    assert told(stripe_keys(one)) == [("sk_test_1", "test", ["a", "unsaid"])]


def test_without_a_key_of_its_own_reconcile_reads_with_the_endpoints() -> None:
    configured = config(endpoint("a", "sk_test_1"), endpoint("keyless"))

    assert told(event_keys(configured)) == told(stripe_keys(configured)) == [("sk_test_1", "test", ["a"])]


def test_reconciles_key_stands_in_for_all_keys_of_its_mode() -> None:
    configured = config(
        endpoint("a", "rk_test_1"),
        endpoint("keyless"),
        endpoint("b", "rk_live_2", mode="live"),
        endpoint("both", "rk_test_3", mode="any"),
        events_key="rk_test_events",
    )

    assert told(event_keys(configured)) == [
        ("rk_test_events", "test", ["a", "keyless", "both"]),
        ("rk_live_2", "live", ["b"]),
    ]
    assert told(stripe_keys(configured))[0] == ("rk_test_1", "test", ["a"])


def test_an_endpoint_of_any_mode_is_read_for_in_both() -> None:
    configured = config(endpoint("both", "rk_live_3", mode="any"), events_key="rk_test_events")

    assert told(event_keys(configured)) == [
        ("rk_test_events", "test", ["both"]),
        ("rk_live_3", "live", ["both"]),
    ]


def test_one_key_cannot_read_the_events_of_several_accounts() -> None:
    several = config(endpoint("a", account="acct_1"), endpoint("b", account="acct_2"), events_key="rk_test_events")
    other_mode = config(
        endpoint("a", account="acct_1"), endpoint("b", account="acct_2", mode="live"), events_key="rk_test_events"
    )

    with pytest.raises(ConfigurationError, match=r"reconcile\.api_key: reads one account.*acct_1, acct_2"):
        event_keys(several)
    assert told(event_keys(other_mode)) == [("rk_test_events", "test", ["a"])]


def test_no_group_shows_its_key() -> None:
    assert "sk_test_1" not in repr(stripe_keys(config(endpoint("a", "sk_test_1"))))
