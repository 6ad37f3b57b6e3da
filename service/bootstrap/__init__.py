"""Composition: the only modules that name concrete adapters, one for each set of drivers.

A command imports those that it needs, and with them the drivers that it pays for.
"""
