"""Times as people write them: `24h`, `7d`, `90m`, or a moment in RFC 3339."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Duration(click.ParamType[timedelta]):
    """A length of time: a whole number of seconds, minutes, hours or days."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """See `click.ParamType.convert`."""
        if isinstance(value, timedelta):
            return value
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is none of 90s, 30m, 24h, 7d", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Moment(click.ParamType[datetime]):
    """A moment: RFC 3339, or a length of time before now."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """See `click.ParamType.convert`."""
        if isinstance(value, datetime):
            return value
        try:
            if _DURATION.fullmatch(value):
                return datetime.now(UTC) - Duration().convert(value, param, ctx)
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a time such as 2026-11-20T10:00:00Z nor a length such as 24h", param, ctx)


@dataclass(frozen=True, slots=True)
class Asked:
    """A moment, and the words that it was given in: `30d` is another moment in each run, and the same option."""

    words: str
    moment: datetime


class AskedMoment(click.ParamType[Asked]):
    """A `Moment` that remembers its words."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Asked:
        """See `click.ParamType.convert`."""
        return value if isinstance(value, Asked) else Asked(value, Moment().convert(value, param, ctx))
