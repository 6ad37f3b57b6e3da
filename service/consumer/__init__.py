"""The consumer: records in, rows out, exactly once in effect."""
