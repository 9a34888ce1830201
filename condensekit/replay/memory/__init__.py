"""Replay memory: what is stored, within which budget, and what fills it."""
