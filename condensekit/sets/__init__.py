"""Condensed sets: storage, packing, JPEG coding and export."""
