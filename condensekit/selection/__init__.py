"""Selections of real images: starts of a condensation, and its baselines."""
