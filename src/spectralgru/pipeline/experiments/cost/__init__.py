"""What a step of the constraint costs."""
