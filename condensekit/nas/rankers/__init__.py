"""Rankers: what scores a candidate, and what it costs."""
