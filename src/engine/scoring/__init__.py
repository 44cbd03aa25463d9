"""Log-probabilities of targets given contexts: an engine with exact prefix sharing, and a plain reference."""
