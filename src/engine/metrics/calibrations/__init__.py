"""Calibrations as files: each registers its rule, and `rules` reads all of them."""
