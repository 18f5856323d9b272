"""A table of results as Markdown, HTML and LaTeX: rows = quantity and source, columns = settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pandas as pd

from spectralgru.files import write_together
from spectralgru.pipeline.pages import render
from spectralgru.pipeline.results.paper import Paper
from spectralgru.setting import Setting, number

FORMS = ("csv", "md", "html", "tex")
COUNTS = ("lost", "broken")
GROUPS = {"constraint": "constraint, δ", "clipping": "clipping, threshold", "none": "none"}


@dataclass(frozen=True)
class Cell:
    """A cell as shown; `text` uses ± and the symbols of the marks."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    quantity: str
    source: str  # ours or paper
    label: str  # the source as shown, with its mark
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Fragment:
    """A table as a part of a page."""

    name: str  # of its files, without suffix
    caption: str
    html: str


@dataclass(frozen=True)
class Rendered:
    """A table ready to be written in any format."""

    caption: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # method as shown, its values
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, settings: Sequence[Setting], caption: str, paper: Paper) -> "Rendered":
        """Lay out a tidy table (`tables.make_table`), with the best mean of each row marked."""
        names = [setting.name for setting in settings]
        quantities = list(dict.fromkeys(table["quantity"]))
        sources = list(dict.fromkeys(table["source"]))
        rows = []
        for source in sources:
            of_source = table[table["source"] == source]
            label = source if source == "ours" else _paper_label(of_source, table, paper)
            first = of_source[of_source["quantity"] == quantities[0]].set_index("setting")["success"]
            shares = tuple(Cell(_percent(first.get(name))) for name in names)
            rows.append(Row("success rate", source, label, shares))
            for count in COUNTS if source == "ours" else ():
                known = of_source[of_source["quantity"] == quantities[0]].set_index("setting")
                rows.append(
                    Row(f"{count} runs", source, label, tuple(_count(known, n, count) for n in names))
                )
            for quantity in quantities:
                part = of_source[of_source["quantity"] == quantity].set_index("setting")
                rows.append(Row(quantity, source, label, _cells(part, names)))
        order = ["success rate", *(f"{count} runs" for count in COUNTS), *quantities]
        rows.sort(key=lambda row: order.index(row.quantity))  # stable: ours before the paper's
        return cls(caption, column_groups(settings), tuple(rows))


def column_groups(settings: Sequence[Setting]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Headings of columns that are settings: method as shown, its values."""
    return tuple(
        (GROUPS[method], tuple("" if value is None else number(value) for _, value in members))
        for method, members in groupby(settings, key=lambda setting: setting.method)
    )


def to_markdown(table: Rendered) -> str:
    """The table as GitHub-flavoured Markdown; group names become part of the column headings."""
    heads = [
        {"constraint, δ": f"δ = {v}", "clipping, threshold": f"clip {v}"}.get(group, group)
        for group, values in table.groups
        for v in values
    ]
    lines = [["", "", *heads], ["---", "---", *["---:"] * len(heads)]]
    for row in _without_repeats(table.rows):
        lines.append([row.quantity, row.label, *(f"**{c.text}**" if c.best else c.text for c in row.cells)])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table.caption}\n\n{body}\n"


def to_fragment(name: str, table: Rendered) -> Fragment:
    """The table as a part of a page."""
    body = render("numbers.html", table=table, rows=_without_repeats(table.rows))
    return Fragment(name, table.caption, body)


def to_html(table: Rendered) -> str:
    """A self-contained page that scrolls sideways on a narrow screen."""
    return render("table.html", caption=table.caption, html=to_fragment("", table).html)


def write_table(stem: Path, numbers: pd.DataFrame, shown: Rendered) -> Fragment:
    """Write `stem` .csv (the numbers), .md, .html and .tex; returns the table as a part of a page."""
    csv = numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    forms = (csv, to_markdown(shown), to_html(shown), to_tex(shown))
    paths = (stem.with_name(f"{stem.name}.{suffix}") for suffix in FORMS)
    write_together({path: text.encode() for path, text in zip(paths, forms, strict=True)})
    return to_fragment(stem.name, shown)


def to_tex(table: Rendered) -> str:
    """A `table*` for a paper; needs the package booktabs."""
    heads: list[str] = []
    rules: list[str] = []
    column = 3
    for group, values in table.groups:
        heads.append(rf"\multicolumn{{{len(values)}}}{{c}}{{{_latex(group)}}}")
        if len(values) > 1:
            rules.append(rf"\cmidrule(lr){{{column}-{column + len(values) - 1}}}")
        column += len(values)
    columns = [v for _, members in table.groups for v in members]
    lines: list[str] = []
    for row in _without_repeats(table.rows):
        if row.quantity and lines:
            lines.append(r"\addlinespace")
        cells = [rf"\textbf{{{_latex(c.text)}}}" if c.best else _latex(c.text) for c in row.cells]
        lines.append(" & ".join([row.quantity, _latex(row.label), *cells]) + r" \\")
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{_latex(table.caption.partition('. ')[2])}}}",  # LaTeX numbers tables itself
            rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}",
            r"\toprule",
            " & ".join([" ", "", *heads]) + r" \\",
            *(["".join(rules)] if rules else []),
            " & ".join([" ", "", *columns]) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _paper_label(of_paper: pd.DataFrame, table: pd.DataFrame, paper: Paper) -> str:
    theirs = paper.tables[of_paper["corpus"].iloc[0]]
    other = (
        "" if theirs.corpus in set(table.loc[table["source"] == "ours", "corpus"]) else f" ({theirs.corpus})"
    )
    return f"paper{other}{theirs.mark.symbol}"


def _count(of_source: pd.DataFrame, name: str, count: str) -> Cell:
    if name not in of_source.index:
        return Cell("")
    row = of_source.loc[name]
    return Cell(f"{row[count]} of {row['n']}")


def _percent(share: float | None) -> str:
    return "" if share is None or pd.isna(share) else f"{share:.0%}".replace("%", " %")


def _cells(part: pd.DataFrame, names: Sequence[str]) -> tuple[Cell, ...]:
    """`part` holds one quantity of one source, indexed by setting."""
    lowest = part["mean"].min()
    cells = []
    for name in names:
        if name not in part.index:
            cells.append(Cell(""))
            continue
        row = part.loc[name]
        if pd.isna(row["mean"]):
            cells.append(Cell("n/a" if row["success"] == 0 else "?"))
            continue
        nll = row["quantity"].endswith("NLL")
        text = f"{row['mean']:.{2 if nll else 1}f}"
        if not pd.isna(row["sd"]):
            # Spreads of the paper are shown with their known digits only.
            paper = row["source"] == "paper"
            text += f" ± {row['sd']:g}" if paper else f" ± {row['sd']:.{2 if nll else 1}f}"
        cells.append(Cell(text, best=bool(row["mean"] == lowest)))
    return tuple(cells)


def _without_repeats(rows: Sequence[Row]) -> list[Row]:
    """The rows, with each quantity named on its first row only."""
    before = ["", *(row.quantity for row in rows)]
    return [
        replace(row, quantity="" if row.quantity == last else row.quantity)
        for row, last in zip(rows, before, strict=False)
    ]


LATEX = {
    "\\": r"\textbackslash{}",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "δ": r"$\delta$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"\S{}",
}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
