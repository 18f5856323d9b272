"""A training loop in plain PyTorch, for whatever the engine does not train."""
