"""Rankers, which score candidates, and the cost of their scores."""
