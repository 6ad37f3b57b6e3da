"""Fuzzing of the pure path: from a delivery's bytes to what the projections see of its event."""
