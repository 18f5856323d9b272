"""A training loop in plain PyTorch, for what the engine does not train."""
