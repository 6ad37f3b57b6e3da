"""The ports, on real servers and in memory. Each module has one driver; drivers' exceptions end here."""
