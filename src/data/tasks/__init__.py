"""Where a run's tasks come from: one source per kind of data."""
