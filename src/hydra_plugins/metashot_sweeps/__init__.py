"""Hydra sweeper of metashot: products, run lists and searches that survive a kill."""
