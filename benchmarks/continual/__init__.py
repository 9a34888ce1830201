"""Continual learning: condensed memories beside real images, class by class."""
