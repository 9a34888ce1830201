"""Study of memories: protocol, regimes, baselines, results."""
