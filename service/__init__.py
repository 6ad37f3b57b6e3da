"""stripe-ingest: from Stripe's webhooks to Kafka topics of normalized events and Postgres tables that are right."""
