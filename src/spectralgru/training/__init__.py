"""Training: needs torch and numpy only."""
