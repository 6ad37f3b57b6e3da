"""The catalog: products and prices."""

from service.contract import Price, Product
from service.normalize.shapes import (
    Tree,
    child,
    first,
    flag,
    identity,
    integer,
    metadata,
    reference,
    text,
    timestamp,
    whole_decimal,
)


def read_product(tree: Tree) -> Product:
    """A `product`."""
    return Product(
        product_id=identity(tree),
        name=text(tree, "name"),
        description=text(tree, "description"),
        active=flag(tree, "active"),
        default_price_id=reference(tree, "default_price"),
        product_type=text(tree, "type"),
        deleted=flag(tree, "deleted") or False,
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
        updated_at=timestamp(tree, "updated"),
    )


def read_price(tree: Tree) -> Price:
    """A `price`, recurring or not."""
    recurring = child(tree, "recurring")
    return Price(
        price_id=identity(tree),
        product_id=reference(tree, "product"),
        active=flag(tree, "active"),
        currency=text(tree, "currency"),
        unit_amount_minor=first(integer(tree, "unit_amount"), whole_decimal(tree, "unit_amount_decimal")),
        unit_amount_decimal=text(tree, "unit_amount_decimal"),
        price_type=text(tree, "type"),
        billing_scheme=text(tree, "billing_scheme"),
        interval=text(recurring, "interval"),
        interval_count=integer(recurring, "interval_count"),
        trial_period_days=integer(recurring, "trial_period_days"),
        usage_type=text(recurring, "usage_type"),
        tiers_mode=text(tree, "tiers_mode"),
        lookup_key=text(tree, "lookup_key"),
        nickname=text(tree, "nickname"),
        tax_behavior=text(tree, "tax_behavior"),
        deleted=flag(tree, "deleted") or False,
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )


def read_plan(tree: Tree) -> Price:
    """A `plan`: what a recurring price was before, with the terms of recurring on itself."""
    return Price(
        price_id=identity(tree),
        product_id=reference(tree, "product"),
        active=flag(tree, "active"),
        currency=text(tree, "currency"),
        unit_amount_minor=first(integer(tree, "amount"), whole_decimal(tree, "amount_decimal")),
        unit_amount_decimal=text(tree, "amount_decimal"),
        price_type="recurring",
        billing_scheme=text(tree, "billing_scheme"),
        interval=text(tree, "interval"),
        interval_count=integer(tree, "interval_count"),
        trial_period_days=integer(tree, "trial_period_days"),
        usage_type=text(tree, "usage_type"),
        tiers_mode=text(tree, "tiers_mode"),
        nickname=text(tree, "nickname") or text(tree, "name"),
        deleted=flag(tree, "deleted") or False,
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )
