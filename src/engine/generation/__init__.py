"""Free-form answers: greedy decoding with a shared prefix."""
