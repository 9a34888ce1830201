"""Benchmarks: the scripts that measure, and what they found."""
