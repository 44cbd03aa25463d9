"""Evaluation of methods: cells, answers, plan, classifier."""
