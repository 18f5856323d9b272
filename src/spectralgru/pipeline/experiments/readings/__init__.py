"""Other readings of what the paper leaves open, with the tables and claims of the default."""
