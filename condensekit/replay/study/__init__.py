"""Studies of memories: protocols, baselines, results."""
