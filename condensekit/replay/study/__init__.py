"""Study of memories: protocol, regimes, baselines and results."""
