"""Amounts for people: the currencies that are not written with two decimals, and what is no currency at all."""

from decimal import Decimal
from typing import Any

import pytest

from service.money import CURRENCIES, currency_of, exponent, format_minor, to_decimal


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (1234, "eur", "12.34 EUR"),
        (1234, "EUR", "12.34 EUR"),
        (5, "usd", "0.05 USD"),
        (0, "usd", "0.00 USD"),
        (-5, "usd", "-0.05 USD"),
        (-123456, "gbp", "-1234.56 GBP"),
        (500, "jpy", "500 JPY"),
        (-500, "jpy", "-500 JPY"),
        (0, "krw", "0 KRW"),
        (12340, "kwd", "12.340 KWD"),
        (-10, "bhd", "-0.010 BHD"),
        (500, "ugx", "5.00 UGX"),
        (500, "isk", "5.00 ISK"),
        (500, "huf", "5.00 HUF"),
        (500, "twd", "5.00 TWD"),
        (2**63 - 1, "idr", "92233720368547758.07 IDR"),
        (-(2**63), "jpy", "-9223372036854775808 JPY"),
        (10**30 + 1, "eur", "10000000000000000000000000000.01 EUR"),
        (700, "xyz", "7.00 XYZ"),
    ],
)
def test_an_amount_is_written_with_its_currencys_decimals(amount_minor: int, currency: str, text: str) -> None:
    assert format_minor(amount_minor, currency) == text


@pytest.mark.parametrize("currency", [None, "", "eu", "euro", "usdc", "e r", "€€€", "eur\n"])
def test_without_a_currency_an_amount_says_what_it_is(currency: str | None) -> None:
    assert format_minor(1234, currency) == "1234 minor units"


@pytest.mark.parametrize("currency", ["eur", None, "nonsense"])
def test_no_amount_is_no_text(currency: str | None) -> None:
    assert format_minor(None, currency) == ""


@pytest.mark.parametrize("currency", ["", "eu", "euro", "€€€", "eur\n"])
def test_what_is_no_currency_has_no_decimals_to_guess(currency: str) -> None:
    with pytest.raises(ValueError, match="three letters"):
        exponent(currency)
    with pytest.raises(ValueError, match="three letters"):
        to_decimal(1, currency)


@pytest.mark.parametrize("currency", ["eur", None])
@pytest.mark.parametrize("amount", [True, False, 1.5, Decimal(1), "1"])
def test_what_is_no_integer_is_no_amount(amount: Any, currency: str | None) -> None:
    with pytest.raises(TypeError, match=f"not a {type(amount).__name__}$"):
        format_minor(amount, currency)
    with pytest.raises(TypeError, match="an int"):
        to_decimal(amount, "eur")


def test_the_table_is_stripes() -> None:
    by_exponent: dict[int, set[str]] = {}
    for code, currency in CURRENCIES.items():
        by_exponent.setdefault(currency.exponent, set()).add(code.upper())

    assert by_exponent[0] == {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV",
                              "XAF", "XOF", "XPF"}  # fmt: skip
    assert by_exponent[3] == {"BHD", "JOD", "KWD", "OMR", "TND"}
    assert by_exponent[2] == {"ISK", "UGX", "HUF", "TWD"}


@pytest.mark.parametrize(
    ("currency", "charge_step", "payout_step"),
    [
        ("eur", 1, 1),
        ("jpy", 1, 1),
        ("kwd", 10, 10),
        ("tnd", 10, 10),
        ("isk", 100, 100),
        ("UGX", 100, 100),
        ("huf", 1, 100),
        ("twd", 1, 100),
    ],
)
def test_some_currencies_only_take_multiples(currency: str, charge_step: int, payout_step: int) -> None:
    found = currency_of(currency)

    assert (found.charge_step, found.payout_step) == (charge_step, payout_step)


def test_a_decimal_keeps_the_zeros_of_its_currency() -> None:
    assert str(to_decimal(1200, "eur")) == "12.00"
    assert str(to_decimal(1200, "jpy")) == "1200"
    assert to_decimal(1200, "kwd") == Decimal("1.2")
