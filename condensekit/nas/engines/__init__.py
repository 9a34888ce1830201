"""Engines: processes that run trials."""
