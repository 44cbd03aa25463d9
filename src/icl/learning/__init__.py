"""Meta-training: sequences, objective, held-out tasks, the learner."""
