"""Study of rankers: contests, truths, statistics and results."""
