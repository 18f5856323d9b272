"""Where tables, figures and runs come from."""
