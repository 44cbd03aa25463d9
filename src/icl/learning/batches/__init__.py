"""Which episodes a step takes, and their sequences as tensors with their loss."""
