"""Engines: what runs trials."""
