"""Studies of rankers: contests, truth, statistics and results."""
