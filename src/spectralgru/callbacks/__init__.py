"""The constraint for training loops that belong to a framework: one module for each framework."""
