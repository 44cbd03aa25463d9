"""What the rows of a report are: a system's answers, its tests against others, published values, other rules."""
