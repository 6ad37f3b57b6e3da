"""What an event says its object was before.

Stripe's `previous_attributes` are a patch backwards, in the shapes of the rendering they come in: the fields that
changed, nested as they stand, arrays whole. Many of our fields are made of several of theirs (a subscription's period
of its items, a status of flags), so the patch cannot be read field by field. Instead the old object is put together
and read like any other; what then differs from the new one is what changed.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from service.contract import Subscription
from service.normalize.objects import NormalizedObject
from service.normalize.shapes import Tree, child, children

DEPTH_MAX: Final = 8
"""Stripe's patches are a few levels deep; a body may be a thousand. Below this a value replaces instead of patching."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


def previous(tree: Tree, patch: object, current: NormalizedObject) -> Mapping[str, Any] | None:
    """The normalized fields that the event changed, with their old values as they stand on the wire.

    None where the event has no `previous_attributes`; empty where what changed is not among the normalized fields.
    Raises `Malformed` with the field that cannot be read.
    """
    if type(patch) is not dict:
        return None
    new = current.data
    if isinstance(new, Subscription):
        patch = _in_its_place(tree, patch)
    old = current.reader(patched(tree, patch, DEPTH_MAX))
    changed = {name: value for name in new.__struct_fields__ if (value := getattr(old, name)) != getattr(new, name)}
    # Through JSON, so that a reader of the record and a reader of this value see the same: lists, RFC 3339 strings.
    wire: dict[str, Any] = _decoder.decode(_encoder.encode(changed)) if changed else {}
    return wire


def _in_its_place(tree: Tree, patch: Tree) -> Tree:
    """A patch of a subscription's own `plan` or `quantity` as one of its item, which is where they are read.

    A subscription with one item shows what the item has (since 2015-10-16); some versions told the change there only.
    """
    items = children(tree, "items")
    if "items" in patch or len(items) != 1:
        return patch
    item = {**items[0]}
    if "quantity" in patch:
        item["quantity"] = patch["quantity"]
    if old_plan := child(patch, "plan"):
        item |= {"plan": {**child(tree, "plan"), **old_plan}, "price": None}  # the price is the new plan's
    return {**patch, "items": {"data": [item]}}


def patched(tree: Tree, patch: Tree, depth: int) -> Tree:
    """A copy of `tree` with `patch` laid over it: objects merge, anything else replaces.

    An array never replaces an object: that is how versions before 2017-04-06 hinted at changes inside of a list.
    """
    merged = {**tree, **patch}
    for name, old in patch.items():
        new = tree.get(name)
        if type(new) is dict and type(old) is dict and depth:
            merged[name] = patched(new, old, depth - 1)
        elif type(new) is dict and type(old) is list:
            merged[name] = new
    return merged
