"""From log-probabilities to numbers: rankings, macro-F1 and accuracy, intervals and tests."""
