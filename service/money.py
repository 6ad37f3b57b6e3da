"""Amounts for people: Stripe's integers in a currency's minor unit, as decimals and as text.

Nothing here is a float, and nothing rounds: an amount and its decimal are the same number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Currency:
    """How Stripe writes a currency's amounts.

    `exponent` is the number of decimals between the minor unit and the currency. `charge_step` and `payout_step` are
    what an amount of a charge, or of a payout, must be a multiple of, in minor units.
    """

    exponent: int = 2
    charge_step: int = 1
    payout_step: int = 1


_ORDINARY: Final = Currency()
_ZERO: Final = Currency(exponent=0)
_THREE: Final = Currency(exponent=3, charge_step=10, payout_step=10)
_WHOLE: Final = Currency(exponent=2, charge_step=100, payout_step=100)
_WHOLE_PAYOUTS: Final = Currency(exponent=2, payout_step=100)

CURRENCIES: Final[Mapping[str, Currency]] = MappingProxyType({
    **dict.fromkeys(
        (
            "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
        ),
        _ZERO,
    ),
    **dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), _THREE),
    # Without decimals in life and by ISO 4217, yet with two at Stripe, always 00: 5 UGX is 500.
    **dict.fromkeys(("isk", "ugx"), _WHOLE),
    **dict.fromkeys(("huf", "twd"), _WHOLE_PAYOUTS),
})  # fmt: skip
"""The currencies that are not written with two decimals and no more rules; every other one is."""

_CODE: Final = re.compile(r"[A-Za-z]{3}")


def currency_of(code: str) -> Currency:
    """How Stripe writes this currency's amounts, by its ISO 4217 code in either case.

    Raises `ValueError` for what cannot be a code: a guess would be wrong by factors of ten.
    """
    if not _CODE.fullmatch(code):
        raise ValueError("a currency is three letters")
    return CURRENCIES.get(code.lower(), _ORDINARY)


def exponent(currency: str) -> int:
    """The decimals between a currency's minor unit and the currency: 2 for EUR, 0 for JPY, 3 for KWD."""
    return currency_of(currency).exponent


def to_decimal(amount_minor: int, currency: str) -> Decimal:
    """The amount in the currency itself, exact, with the currency's decimals: 1234 EUR-cents are `Decimal("12.34")`.

    Raises `TypeError` for what is no integer.
    """
    _check_amount(amount_minor)
    # Not by arithmetic, which rounds to the context's precision.
    sign, digits, _ = Decimal(amount_minor).as_tuple()
    return Decimal((sign, digits, -exponent(currency)))


def format_minor(amount_minor: int | None, currency: str | None) -> str:
    """An amount for people: `12.34 EUR`; nothing where there is none.

    Without a currency to tell the decimals by, the integer with what it is: `1234 minor units`. Raises `TypeError` for
    what is neither.
    """
    if amount_minor is None:
        return ""
    _check_amount(amount_minor)
    if currency is None or not _CODE.fullmatch(currency):
        return f"{amount_minor} minor units"
    return f"{to_decimal(amount_minor, currency)} {currency.upper()}"


def _check_amount(amount_minor: object) -> None:
    # To Python True is the integer 1, and the digits of 1.5 are 15: both would come out as an amount.
    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int):
        raise TypeError(f"an amount in minor units is an int, not a {type(amount_minor).__name__}")
