"""Continual-learning benchmark: condensed memories and memories of real images in class-incremental learning."""
