"""Runs: the files, folders and locks of a run."""
