"""Which API versions an endpoint can be made with, and what is said of the others."""

import pytest

from service.normalize.event_types import API_VERSIONS, NEWEST_API_VERSION
from service.stripe_account.endpoint_versions import why_no_api_version


@pytest.mark.parametrize("version", API_VERSIONS)
def test_each_of_stripes_is_taken(version: str) -> None:
    assert why_no_api_version(version) is None


@pytest.mark.parametrize(
    ("version", "meant"),
    [
        ("2026-10-28", "2026-10-28.endive"),
        ("2025-03-31.acacia", "2025-03-31.basil"),
        ("2026-08-26.preview", "2026-08-26.dahlia"),
        ("2020-08-28", "2020-08-27"),
        ("2024-06-20; risk_in_requirements_beta=v1", "2024-06-20"),
    ],
)
def test_one_that_is_nearly_one_is_told_which(version: str, meant: str) -> None:
    assert why_no_api_version(version) == (
        f"is no API version that Stripe makes webhook endpoints with: did you mean {meant}?"
    )


@pytest.mark.parametrize("version", ["", "latest", "endive", "9" * 10_000])
def test_one_that_is_like_none_is_told_the_newest(version: str) -> None:
    assert why_no_api_version(version) == (
        f"is no API version that Stripe makes webhook endpoints with; the newest is {NEWEST_API_VERSION}"
    )


def test_one_that_is_newer_than_this_release_is_told_so() -> None:
    assert why_no_api_version("2027-01-27.fern") == (
        f"is newer than this release knows: the newest is {NEWEST_API_VERSION}"
    )
