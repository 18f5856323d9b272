"""A table of the report, which is HTML, as rows of cells for another typesetter."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from spectralgru.pipeline.results.render import Fragment


@dataclass
class _Rows(HTMLParser):
    rows: list[dict[str, Any]] = field(default_factory=list)
    head: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("thead", "tbody"):
            self.head = tag == "thead"
        elif tag == "tr":
            rule = "rule" in (given.get("class") or "").split()
            self.rows.append({"head": self.head, "rule": rule, "cells": []})
        elif tag in ("th", "td"):
            cell = {"text": "", "span": int(given.get("colspan") or 1), "number": tag == "td", "best": False}
            self.rows[-1]["cells"].append(cell)
        elif tag == "b":
            self.rows[-1]["cells"][-1]["best"] = True

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]["cells"]:
            self.rows[-1]["cells"][-1]["text"] += data.strip("\n")


def to_rows(table: Fragment) -> dict[str, Any]:
    """Caption, number of columns, and rows of cells, each with its text, the columns it spans, and its kind."""
    parser = _Rows()
    parser.feed(table.html)
    columns = max(sum(cell["span"] for cell in row["cells"]) for row in parser.rows)
    # The typesetter numbers tables itself.
    caption = table.caption.partition(". ")[2] if table.caption.startswith("Table ") else table.caption
    return {"name": table.name, "caption": caption, "columns": columns, "rows": parser.rows}
