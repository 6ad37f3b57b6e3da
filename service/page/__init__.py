"""The operator's page: what comes in, what became of it, and what is parked, on the admin port of a receiver."""
