"""Stripe as its receivers see it: objects, events, life cycles, arrival orders, signatures and the retry schedule."""
