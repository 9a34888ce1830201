"""Avalanche's side of replay: plugins, strategies, loaders, metrics."""
