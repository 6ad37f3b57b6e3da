"""From Stripe's bytes to one normalized event, whatever API version rendered them."""

from service.normalize.envelope import normalize
from service.normalize.event_types import category_of
from service.normalize.objects import NormalizedObject, normalize_object
from service.normalize.shapes import Malformed

__all__ = ["Malformed", "NormalizedObject", "category_of", "normalize", "normalize_object"]
