"""In-context learning: prompts, scoring methods, meta-training and evaluation."""
