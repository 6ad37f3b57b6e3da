"""What is kept for endpoints: the order of secrets, what is shown of them, and the store in memory."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.adapters.memory_credentials import MemoryCredentialStore
from service.credentials.book import Credentials, EndpointCredentials, SigningSecret, is_signing_secret
from service.errors import ConfigurationError
from service.events import Secret
from service.ports import CredentialStore
from tests.contracts.credential_store import SHOP, TEST, CredentialStoreContract

T0 = datetime(2026, 11, 20, tzinfo=UTC)


class MemoryHarness:
    """One object is what all processes share."""

    def __init__(self) -> None:
        self.store = MemoryCredentialStore()

    def another(self) -> CredentialStore:
        return self.store

    def fail_next_write(self) -> None:
        self.store.fail_after(0)


class TestMemoryCredentialStore(CredentialStoreContract):
    """The store in memory."""

    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


class Died(BaseException):
    """What kills a process in these tests."""


def test_a_process_can_be_made_to_die_before_or_after_any_write() -> None:
    one, two = Credentials().having("shop", SHOP), Credentials().having("test", TEST)
    store = MemoryCredentialStore(one)

    store.fail_after(1, error=Died())
    store.write(two)
    with pytest.raises(Died):
        store.write(one)
    assert store.read() == two

    store.fail_after(0, kept=True, error=Died())
    with pytest.raises(Died):
        store.write(one)
    assert store.read() == one
    store.write(two)
    assert list(store.writes) == [two, one, two]


def test_a_new_secret_comes_before_those_that_are_kept() -> None:
    newer = SigningSecret(Secret("whsec_newer"), T0)

    changed = SHOP.with_signing(newer)

    assert changed.signing == (newer, *SHOP.signing)
    assert changed.with_newest_signing_only() == replace(SHOP, signing=(newer,))


def test_a_secret_that_is_kept_already_comes_first_and_stays_its_endpoints() -> None:
    kept = EndpointCredentials(
        signing=(SigningSecret(Secret("whsec_a"), T0), SigningSecret(Secret("whsec_b"), T0, "we_b"))
    )
    later = T0 + timedelta(days=1)

    changed = kept.with_signing(SigningSecret(Secret("whsec_b"), later))

    assert changed.signing == (SigningSecret(Secret("whsec_b"), later, "we_b"), kept.signing[0])
    assert kept.with_signing(SigningSecret(Secret("whsec_a"), T0, "we_a")).signing[0].webhook_endpoint_id == "we_a"


def test_an_endpoint_of_which_nothing_is_kept_is_not_in_the_book() -> None:
    credentials = Credentials().having("shop", SHOP)

    assert credentials.having("shop", EndpointCredentials()) == Credentials()
    assert credentials.of("another") == EndpointCredentials()
    assert credentials.of("shop") == SHOP


def test_a_creation_is_repeated_for_less_than_a_day() -> None:
    creation = SHOP.creation
    assert creation is not None

    assert creation.repeatable(creation.begun_at + timedelta(hours=22, minutes=59))
    assert not creation.repeatable(creation.begun_at + timedelta(hours=23))


@pytest.mark.parametrize(
    "value", ["", "whsec_", "whsec", "sk_live_1", "whsec_a b", "whsec_a\n", " whsec_a", "whsec_ä", "whsec_\udc80"]
)
def test_what_has_not_the_form_of_a_signing_secret_is_none(value: str) -> None:
    assert not is_signing_secret(Secret(value))


@pytest.mark.parametrize("value", ["whsec_a", "whsec_" + "0" * 64, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw+/="])
def test_stripes_and_its_command_lines_are_signing_secrets(value: str) -> None:
    assert is_signing_secret(Secret(value))


def test_no_secret_is_shown() -> None:
    credentials = Credentials().having("shop", SHOP).having("test", TEST)
    store = MemoryCredentialStore(credentials)
    store.fail_after(0)
    with pytest.raises(ConfigurationError) as failed:
        store.write(credentials)

    shown = f"{credentials!r} {credentials} {SHOP!r} {SHOP.signing!r} {store!r} {failed.value!r}"

    for secret in ("whsec_", "rk_test"):
        assert secret not in shown
