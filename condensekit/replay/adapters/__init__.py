"""Adapters to Avalanche: storage policy, plugins, strategies, loaders and metrics."""
