"""Free-form answers: greedy or sampled, with shared prefixes."""
