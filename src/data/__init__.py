"""Tasks, recipes, settings, k-shot sampling and episodes: everything before a model sees ids."""
