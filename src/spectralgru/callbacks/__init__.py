"""The constraint for people whose training loop is a framework's: one module for each framework."""
