"""A table of an experiment in every format."""

from pathlib import Path
from typing import Any

import pandas as pd

from spectralgru.files import write_text
from spectralgru.pipeline.results.render import Rendered, to_html, to_latex, to_markdown


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def write_table(stem: Path, table: pd.DataFrame, shown: Rendered) -> str:
    """Write `stem` .csv, .md, .html and .tex; returns the name of the HTML file."""
    csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    forms = {"csv": csv, "md": to_markdown(shown), "tex": to_latex(shown), "html": to_html(shown)}
    for suffix, text in forms.items():
        write_text(stem.with_name(f"{stem.name}.{suffix}"), text)
    return f"{stem.name}.html"
