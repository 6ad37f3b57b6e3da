"""Our side of a Stripe account: its API, its keys, its webhook endpoints."""
