"""Engines, which run the trials of a search, and their worker processes."""
