"""From events to rows: pure functions of sets of events."""

from collections.abc import Mapping
from typing import Final

from service.projections.catalog import CATALOG
from service.projections.model import Projection
from service.projections.payments import PAYMENTS
from service.projections.refunds import REFUNDS
from service.projections.subscriptions import SUBSCRIPTIONS

PROJECTIONS: Final[Mapping[str, Projection]] = {
    projection.name: projection for projection in (PAYMENTS, REFUNDS, SUBSCRIPTIONS, CATALOG)
}
"""By name."""
