"""The receiving side: from a delivery over HTTP to an acknowledged record."""
