"""Which API versions a webhook endpoint can be made with."""

import re
from difflib import get_close_matches
from typing import Final

from service.normalize.event_types import API_VERSIONS, NEWEST_API_VERSION

_FORM: Final = re.compile(r"\d{4}-\d\d-\d\d(\.[a-z]+)?")
_DATE_CHARACTERS: Final = len("2026-10-28")


def why_no_api_version(version: str) -> str | None:
    """Why Stripe makes no webhook endpoint with it, to follow the setting's name: "is …"; None where it does.

    A version that is newer than this release may be one of Stripe's: it is not known what its events look like.
    """
    if version in API_VERSIONS:
        return None
    if _FORM.fullmatch(version) and version[:_DATE_CHARACTERS] > NEWEST_API_VERSION[:_DATE_CHARACTERS]:
        return f"is newer than this release knows: the newest is {NEWEST_API_VERSION}"
    near = _near(version)
    meant = f": did you mean {near}?" if near else f"; the newest is {NEWEST_API_VERSION}"
    return f"is no API version that Stripe makes webhook endpoints with{meant}"


def _near(version: str) -> str | None:
    """The version of the same day, or the one most like it."""
    day = version[:_DATE_CHARACTERS]
    same_day = [known for known in API_VERSIONS if known[:_DATE_CHARACTERS] == day]
    return next(iter(same_day or get_close_matches(version, reversed(API_VERSIONS), n=1)), None)
