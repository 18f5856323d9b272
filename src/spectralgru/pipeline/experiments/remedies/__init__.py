"""The constraint beside other remedies for exploding gradients."""
