"""Real Kafka, Postgres and Redis on this machine, from wheels: for `up` and the tests, never for production."""
