"""Each name of a field that a reader uses matters: with it altered, some event of our own reads differently."""

from typing import Any

import msgspec
import pytest

import service.normalize
from service.contract import Event
from tests.oracle.cases import REFUSED
from tests.oracle.mutants import PACKAGE, Readers
from tests.oracle.samples import delivered, own_samples

NO_READERS = frozenset({PACKAGE, "envelope", "event_types", "vocabulary", "catalogue"})
"""Modules that read no object: the package's names, the envelope and the tables of event types."""


def word(normalize: Any, delivery: Any) -> object:
    """What normalization says, to compare."""
    outcome = normalize(delivery)
    if isinstance(outcome, Event):
        return msgspec.json.encode(outcome)
    return (outcome.reason, outcome.detail)


def is_noticed(readers: Readers, literal: Any, deliveries: list[Any], golden: list[object]) -> bool:
    """Whether any event reads differently, or cannot be read at all."""
    try:
        with readers.mutant(literal) as normalize:
            return any(word(normalize, it) != was for it, was in zip(deliveries, golden, strict=True))
    except Exception:  # noqa: BLE001 -- whatever a mutant raises, it has been noticed
        return True


@pytest.mark.timeout(120)
def test_every_field_name_in_the_readers_matters() -> None:
    deliveries = [delivered(it.tree) for it in own_samples()] + [delivered(tree) for tree in REFUSED.values()]
    normalize = service.normalize.normalize
    golden = [word(normalize, it) for it in deliveries]
    readers = Readers()
    literals = readers.literals(but=NO_READERS)

    survivors = [str(it) for it in literals if not is_noticed(readers, it, deliveries, golden)]

    assert len(literals) > 100
    assert not survivors
    assert service.normalize.normalize is normalize
