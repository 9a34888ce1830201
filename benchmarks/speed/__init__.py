"""Speed benchmark: seconds, steps and memory, compared with other code."""
