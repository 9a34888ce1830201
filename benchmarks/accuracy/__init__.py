"""Accuracy benchmark: networks trained from scratch on condensed, selected and all images."""
