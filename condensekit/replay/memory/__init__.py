"""Replay memory: what is kept, within which budget, and what fills it."""
