"""Which URLs are refused before Stripe is asked, and why."""

import pytest

from service.simulator.fake_stripe import FakeStripe
from service.simulator.fake_stripe.refusals import Refusal
from service.stripe_account.endpoint_urls import is_below, same_url, shown, why_unreachable

PUBLIC = (
    "https://hooks.example.com/webhooks/shop",
    "https://hooks.example.com",
    "https://hooks.example.com:8443/webhooks/shop?a=b",
    "https://HOOKS.Example.COM/",
    "https://hooks.example.com./",
    "https://8.8.8.8/webhooks/shop",
    "https://[2606:4700:4700::1111]/webhooks/shop",
    "https://user:password@hooks.example.com/",
    "https://xn--bcher-kva.example.com/",
    "https://testing.shop/",
    "https://mylocal.shop/",
)
REFUSED = (
    ("https://localhost/webhooks/shop", "stripe listen"),
    ("https://localhost:8080/", "on this machine"),
    ("https://LOCALHOST./", "on this machine"),
    ("https://shop.localhost/", "on this machine"),
    ("https://127.0.0.1/", "on this machine"),
    ("https://127.8.9.1:8080/", "on this machine"),
    ("https://0.0.0.0/", "on this machine"),
    ("https://[::1]/", "on this machine"),
    ("https://[::]/", "on this machine"),
    ("https://[::ffff:127.0.0.1]/", "on this machine"),
    ("https://10.1.2.3/", "private or reserved"),
    ("https://172.20.0.1/", "private or reserved"),
    ("https://192.168.1.1/", "private or reserved"),
    ("https://169.254.169.254/", "private or reserved"),
    ("https://100.64.0.1/", "private or reserved"),
    ("https://192.0.2.1/", "private or reserved"),
    ("https://224.0.0.1/", "private or reserved"),
    ("https://240.0.0.1/", "private or reserved"),
    ("https://255.255.255.255/", "private or reserved"),
    ("https://[fe80::1]/", "private or reserved"),
    ("https://[fd00::1]/", "private or reserved"),
    ("https://[::ffff:10.0.0.1]/", "private or reserved"),
    ("https://[2002:7f00:1::]/", "on this machine"),
    ("https://[2001:db8::1]/", "private or reserved"),
    ("https://2130706433/", "unusual form"),
    ("https://127.1/", "unusual form"),
    ("https://0x7f.0.0.0x1/", "unusual form"),
    ("https://shop/webhooks", "without a dot"),
    ("https://receiver:8080/", "without a dot"),
    ("https://shop.local/", "ends in .local"),
    ("https://shop.internal/", "ends in .internal"),
    ("https://shop.test/", "ends in .test"),
    ("https://shop.invalid/", "ends in .invalid"),
    ("https://shop.example/", "ends in .example"),
    ("https://router.home.arpa/", "ends in .home.arpa"),
    ("https://metadata.google.internal./", "ends in .internal"),
    ("hooks.example.com/webhooks/shop", "must begin with https://"),
    ("hooks.example.com:443/webhooks/shop", "must begin with https://"),
    ("//hooks.example.com/", "must begin with https://"),
    ("https:/hooks.example.com/", "must begin with https://"),
    ("https:hooks.example.com", "must begin with https://"),
    ("ftp://hooks.example.com/", "must begin with https://"),
    ("", "must begin with https://"),
    ("https:///webhooks", "no host"),
    ("https://:443/", "no host"),
    ("https://hooks.example.com:99999/", "is no URL"),
    ("https://hooks.example.com:port/", "is no URL"),
    ("https://[::1/", "is no URL"),
    ("https://hooks.example.com/a b", "without blanks"),
    ("https://hooks.example.com/\n", "without blanks"),
    ("https://hooks.example.com/" + "a" * 2000, "2000 characters"),
)


@pytest.mark.parametrize("url", PUBLIC)
@pytest.mark.parametrize("livemode", [True, False])
def test_what_stripe_may_reach_is_not_refused(url: str, livemode: bool) -> None:
    assert why_unreachable(url, livemode=livemode) is None


@pytest.mark.parametrize(("url", "why"), REFUSED)
@pytest.mark.parametrize("livemode", [True, False])
def test_what_stripe_cannot_reach_is_refused_in_a_sentence(url: str, why: str, livemode: bool) -> None:
    said = why_unreachable(url, livemode=livemode)

    assert said is not None
    assert why in said
    assert "\n" not in said
    assert not said.endswith(".")


def test_plain_http_is_for_test_mode() -> None:
    assert why_unreachable("http://hooks.example.com/", livemode=False) is None
    assert "live mode" in str(why_unreachable("http://hooks.example.com/", livemode=True))
    assert "on this machine" in str(why_unreachable("http://localhost:8080/", livemode=False))


@pytest.mark.parametrize("livemode", [True, False])
def test_what_the_fake_stripe_refuses_has_been_refused_before(livemode: bool) -> None:
    endpoints = FakeStripe().book("acct_1", livemode=livemode).endpoints
    urls = [*PUBLIC, *(url for url, _ in REFUSED), "http://hooks.example.com/"]

    for url in urls:
        if why_unreachable(url, livemode=livemode) is None:
            endpoints.delete(endpoints.create({"url": url, "enabled_events": ["*"]}, 0)["id"])
    for url in urls:
        try:
            endpoints.delete(endpoints.create({"url": url, "enabled_events": ["*"]}, 0)["id"])
        except Refusal:
            assert why_unreachable(url, livemode=livemode) is not None, url


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("https://hooks.example.com/a", True),
        ("HTTPS://Hooks.Example.com:443/a", True),
        ("https://hooks.example.com./a", True),
        ("http://hooks.example.com/a", False),
        ("https://hooks.example.com:8443/a", False),
        ("https://hooks.example.com/A", False),
        ("https://hooks.example.com/a/", False),
        ("https://hooks.example.com/a?b", False),
        ("https://user@hooks.example.com/a", False),
        ("https://[::1/a", False),
    ],
)
def test_one_address_may_be_spelt_in_several_ways(other: str, same: bool) -> None:
    assert same_url("https://hooks.example.com/a", other) is same


def test_without_a_path_it_is_the_root() -> None:
    assert same_url("https://hooks.example.com", "https://hooks.example.com:443/")


def test_a_password_in_a_url_is_not_shown() -> None:
    assert shown("https://user:word@hooks.example.com:8443/a") == "https://***@hooks.example.com:8443/a"
    assert shown("https://hooks.example.com/a@b") == "https://hooks.example.com/a@b"
    assert "word" not in shown("https://user:word@[::1/a")


@pytest.mark.parametrize(
    ("url", "below"),
    [
        ("https://hooks.example.com/stripe/webhooks/shop", True),
        ("HTTPS://Hooks.example.com:443/stripe/x", True),
        ("https://hooks.example.com/stripe2/x", False),
        ("https://hooks.example.com/stripe", False),
        ("https://hooks.example.com/", False),
        ("http://hooks.example.com/stripe/x", False),
        ("https://hooks.example.com:8443/stripe/x", False),
        ("https://other.example.com/stripe/x", False),
        ("https://[", False),
    ],
)
def test_what_is_below_a_url(url: str, below: bool) -> None:
    for base in ("https://hooks.example.com/stripe", "https://hooks.example.com/stripe/"):
        assert is_below(url, base) is below


def test_all_of_a_host_is_below_it() -> None:
    assert is_below("https://hooks.example.com/webhooks/shop", "https://hooks.example.com")
