"""What runs stripe-ingest and watches over it. Nothing here is in the wheel."""
