"""Trials of a search: driver, log, strategies and time budget."""
