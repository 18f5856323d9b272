"""Where a table, figure or run comes from."""
