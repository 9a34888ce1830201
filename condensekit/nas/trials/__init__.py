"""Trials of a search: driver, log, strategies, time budget."""
