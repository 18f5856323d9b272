"""The arrays that a trainer reads."""
