"""Few-shot prompt tuning of downstream tasks."""
