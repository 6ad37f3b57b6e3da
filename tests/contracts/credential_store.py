"""What every `CredentialStore` promises. A test module inherits the class and gives a harness for its store."""

from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Protocol

import pytest

from service.credentials.book import (
    Creation,
    Credentials,
    EndpointCredentials,
    SigningSecret,
    WebhookEndpointParams,
)
from service.errors import ConfigurationError, JobHeld
from service.events import Secret
from service.ports import CredentialStore


class CredentialHarness(Protocol):
    """A store with nothing in it."""

    @property
    def store(self) -> CredentialStore: ...

    def another(self) -> CredentialStore:
        """The same store as another process has it."""
        ...

    def fail_next_write(self) -> None:
        """Make the next write raise what a full disk raises."""
        ...


SHOP: Final = EndpointCredentials(
    signing=(
        SigningSecret(Secret("whsec_new"), datetime(2026, 11, 20, 10, tzinfo=UTC), "we_2"),
        SigningSecret(Secret("whsec_old"), datetime(2026, 11, 19, 10, 0, 0, 250_000, tzinfo=UTC)),
    ),
    api_key=Secret("rk_test_1"),
    creation=Creation(
        idempotency_key="key 1",
        begun_at=datetime(2026, 11, 20, 9, tzinfo=UTC),
        params=WebhookEndpointParams(
            url="https://shop.example.com/webhooks/shop",
            enabled_events=("charge.refunded", "payment_intent.succeeded"),
            api_version=None,
            connect=False,
            description="Bücher, and more",
            metadata=MappingProxyType({"stripe_ingest_endpoint": "shop"}),
        ),
    ),
)
"""An endpoint of which everything is kept that can be."""
TEST: Final = EndpointCredentials(signing=(SigningSecret(Secret("whsec_test"), datetime(2026, 1, 1, tzinfo=UTC)),))


class CredentialStoreContract:
    """Inherited by a test class whose module has a fixture `harness`."""

    def test_nothing_is_kept_at_first(self, harness: CredentialHarness) -> None:
        assert harness.store.read() == Credentials()

    def test_what_is_kept_is_read_by_every_process(self, harness: CredentialHarness) -> None:
        credentials = Credentials().having("shop", SHOP).having("test", TEST)

        harness.store.write(credentials)

        assert harness.store.read() == credentials
        assert harness.another().read() == credentials

    def test_a_write_takes_the_place_of_all_before_it(self, harness: CredentialHarness) -> None:
        harness.store.write(Credentials().having("shop", SHOP))
        rolled = replace(SHOP, creation=None).with_newest_signing_only()

        harness.store.write(Credentials().having("shop", rolled))

        assert harness.another().read().of("shop") == rolled
        harness.store.write(Credentials())
        assert harness.another().read() == Credentials()

    def test_a_write_that_fails_leaves_what_there_was(self, harness: CredentialHarness) -> None:
        harness.store.write(Credentials().having("shop", SHOP))
        harness.fail_next_write()

        with pytest.raises(ConfigurationError, match=r"^secrets\.store: "):
            harness.store.write(Credentials().having("test", TEST))

        assert harness.another().read() == Credentials().having("shop", SHOP)
        harness.store.write(Credentials().having("test", TEST))
        assert harness.another().read() == Credentials().having("test", TEST)

    def test_one_process_at_a_time_changes_it(self, harness: CredentialHarness) -> None:
        with harness.store.held():
            with pytest.raises(JobHeld, match="being changed by another process"), harness.another().held():
                pass
            harness.store.write(Credentials().having("shop", SHOP))
            assert harness.another().read() == Credentials().having("shop", SHOP)

        with harness.another().held():
            pass

    def test_it_is_not_held_any_more_after_a_failure(self, harness: CredentialHarness) -> None:
        with pytest.raises(RuntimeError), harness.store.held():
            raise RuntimeError

        with harness.another().held():
            pass
