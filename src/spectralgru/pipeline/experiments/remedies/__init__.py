"""The constraint compared with other remedies for exploding gradients."""
