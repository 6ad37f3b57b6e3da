"""Amounts and their decimals are the same number, whatever the amount and the currency."""

from decimal import Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from service.money import CURRENCIES, exponent, format_minor, to_decimal

amounts = st.integers(min_value=-(10**40), max_value=10**40)
currencies = st.sampled_from(sorted(CURRENCIES)) | st.from_regex(r"[A-Za-z]{3}", fullmatch=True)


@given(amounts, currencies)
def test_what_is_written_is_the_amount_digit_by_digit(amount_minor: int, currency: str) -> None:
    number, _, code = format_minor(amount_minor, currency).rpartition(" ")

    assert code == currency.upper()
    assert int(number.replace(".", "")) == amount_minor
    assert len(number.partition(".")[2]) == exponent(currency)
    assert number.startswith("-") == (amount_minor < 0)


@given(amounts, currencies)
def test_a_decimal_goes_back_to_its_amount(amount_minor: int, currency: str) -> None:
    decimal = to_decimal(amount_minor, currency)

    assert type(decimal) is Decimal
    with localcontext(prec=60):
        assert decimal.scaleb(exponent(currency)) == amount_minor
    assert format_minor(amount_minor, currency) == f"{decimal} {currency.upper()}"


@given(amounts, amounts, currencies)
def test_decimals_are_in_the_order_of_their_amounts(one: int, other: int, currency: str) -> None:
    assert (to_decimal(one, currency) < to_decimal(other, currency)) == (one < other)


@given(amounts, currencies)
def test_a_precision_that_somebody_set_rounds_nothing(amount_minor: int, currency: str) -> None:
    expected = to_decimal(amount_minor, currency).as_tuple()

    with localcontext(prec=2):
        assert to_decimal(amount_minor, currency).as_tuple() == expected
