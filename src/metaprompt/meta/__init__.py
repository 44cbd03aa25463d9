"""Meta-tasks from clusters, the gradient regularizer, and meta-training."""
