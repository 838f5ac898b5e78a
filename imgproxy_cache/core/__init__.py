"""Decisions: values in, values out. No I/O, clock, environment, logging or await."""
