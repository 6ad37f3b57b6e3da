"""The commands that `service/cli.py` gathers, a module for each group."""
