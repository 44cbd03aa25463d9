"""Prompt formats: what stands around inputs and outputs, begin-of-sequence, and where pieces meet."""
