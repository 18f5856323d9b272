"""Sentences of the paper as checks on run records: `check` judges, `render` shows."""
