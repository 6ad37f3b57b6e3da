"""An independent judge of normalization: where Stripe says each fact, found by searching the raw tree.

It shares no code with `service.normalize`; it knows the contract's types only. To teach it a new field, add a line to
the table in `facts`: the field, its kind, and every place where Stripe has ever said it, the best one first.
"""
