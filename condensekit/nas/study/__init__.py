"""Studies of rankers: contests, truth, statistics and reports."""
