"""Engines that load the weights themselves and score token ids: vLLM in this process, servers elsewhere."""
