"""Soft prompts: self-supervised meta-tasks, gradient regularizer, meta-training, prompt tuning."""
