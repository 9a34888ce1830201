"""Search benchmark: the ranking quality of rankers against the truth."""
