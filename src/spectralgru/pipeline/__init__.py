"""From raw corpora to tables, figures and the report: the command line and everything behind it."""
