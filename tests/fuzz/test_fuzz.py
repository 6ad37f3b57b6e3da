"""A bounded number of fuzzed inputs, and how the work grows with the size of a body. `make fuzz` runs a million."""

import importlib.util
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from service.errors import SignatureRefused
from service.events import Delivery
from service.signature import verify
from tests.fuzz import growth, running, target
from tests.fuzz.running import BYTES, RANDOM, REDACTED, SIGNATURE, STRUCTURE
from tests.fuzz.seeds import samples
from tests.fuzz.structure import events
from tests.fuzz.tally import Tally

SEEDED_INPUTS = 20_000
GUIDED_INPUTS = 20_000
SHAPED_EXAMPLES = 2_000
EDGES_MIN = 300
"""Of the instrumented modules; without instrumentation it is a handful."""


def faults(tally: Tally) -> str:
    return "\n".join(f"{times} times: {text}\nof {body[:2000]!r}" for times, text, body in tally.faults.values())


@settings(max_examples=SHAPED_EXAMPLES, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
@given(body=events(samples()))
def test_bodies_that_are_nearly_stripes_come_through_or_are_kept(body: bytes) -> None:
    target.settle(target.signed(body))


def test_mutated_events_damaged_bytes_and_wrong_headers_come_through_or_are_kept_or_refused() -> None:
    tally = running.run_seeded(
        SEEDED_INPUTS, 1, processes=os.cpu_count() or 1, until=time.monotonic() + 60, advanced=lambda _: None
    )

    assert not tally.faults, faults(tally)
    assert tally.inputs.total() == SEEDED_INPUTS
    assert set(tally.inputs) == {STRUCTURE, REDACTED, BYTES, SIGNATURE, RANDOM}
    # They are no use if they all fail at the door: every family of events comes through, every kind of refusal happens.
    assert {detail for kind, detail in tally.outcomes if kind == "event"} >= {
        "payment", "refund", "subscription", "customer", "catalog", "other",
    }  # fmt: skip
    assert {detail for kind, detail in tally.outcomes if kind == "unprocessable"} >= {
        "malformed_json", "not_an_event", "nested_too_deep", "object_malformed", "object_missing", "event_id_malformed",
        "event_type_malformed", "created_malformed", "livemode_malformed", "mode_mismatch",
    }  # fmt: skip
    assert {detail for kind, detail in tally.outcomes if kind == "refused"} >= {
        "signature_missing", "signature_malformed", "timestamp_outside_tolerance",
    }  # fmt: skip


def test_seeded_inputs_are_the_same_in_every_run() -> None:
    assert running.run_chunk(7, 3, 200).outcomes == running.run_chunk(7, 3, 200).outcomes


def test_bytes_guided_by_coverage_come_through_or_are_kept(tmp_path: Path) -> None:
    assert importlib.util.find_spec("atheris") is not None, (
        "atheris is not installed: it has wheels for CPython on Linux x86-64, and this proof needs it"
    )

    guided = running.run_guided(
        GUIDED_INPUTS, 1, tmp_path, processes=os.cpu_count() or 1, until=time.monotonic() + 60, advanced=lambda _: None
    )

    assert not guided.tally.faults, faults(guided.tally)
    assert guided.tally.inputs.total() == GUIDED_INPUTS
    assert guided.edges >= EDGES_MIN


@pytest.mark.parametrize("family", growth.FAMILIES)
def test_the_work_grows_no_faster_than_the_body(family: str) -> None:
    """Counted in bytecodes, which no other load on the machine changes: quadratic would be 16 times."""
    small, large = (target.signed(growth.FAMILIES[family](size)) for size in (4 * growth.KIB, 16 * growth.KIB))

    def steps(delivery: Delivery) -> int:
        return growth.bytecodes(lambda: target.settle(delivery))

    assert steps(large) <= 5 * steps(small)


@pytest.mark.parametrize("family", growth.FAMILIES)
def test_the_memory_that_a_large_body_needs_is_bounded(family: str) -> None:
    delivery = target.signed(growth.FAMILIES[family](256 * growth.KIB))

    assert growth.peak_bytes(delivery) <= 64 * len(delivery.body)


def test_what_takes_quadratic_time_would_be_seen() -> None:
    def quadratic(size: int) -> int:
        return growth.bytecodes(lambda: [None for _ in range(size) for _ in range(size)])

    assert quadratic(400) > 5 * quadratic(100)


def test_a_fault_in_the_path_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise LookupError("broken")

    monkeypatch.setattr(target, "encode", broken)
    tally = Tally()

    tally.run("sample", target.signed(samples()[0]))

    assert [times for times, _, _ in tally.faults.values()] == [1]


def test_a_delivery_that_is_not_signed_is_refused() -> None:
    delivery = target.signed(samples()[0])

    with pytest.raises(SignatureRefused):
        verify(
            Delivery(delivery.endpoint, delivery.body + b" ", delivery.signature_headers, target.NOW),
            now=target.NOW,
            tolerance_seconds=target.TOLERANCE_SECONDS,
        )
