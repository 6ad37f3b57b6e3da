"""Recovering what was missed, parked or refused: reconciliation, backfill, redriving, rebuilding."""
