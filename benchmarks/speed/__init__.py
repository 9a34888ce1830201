"""Speed: seconds, steps and memory, beside other code."""
