"""Replay memory: the stored images, their budget, and the fillers that make them."""
