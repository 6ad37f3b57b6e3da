"""Metrics and logs: what the service tells those who run it."""
