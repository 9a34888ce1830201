"""Benchmarks: the scripts, and their results."""
