"""Hydra sweepers of metashot: `ledger` (resumable products and run lists) and `search` (Optuna)."""
