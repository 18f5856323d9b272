"""Rows of a table."""

from typing import Any

import pandas as pd


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each as a dict by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
