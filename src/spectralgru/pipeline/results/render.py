"""A table of results as Markdown, HTML and LaTeX: rows = quantity and source, columns = settings."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd

from spectralgru.pipeline.results.load import Setting
from spectralgru.pipeline.results.paper import Paper
from spectralgru.records import setting_name

GROUPS = {"constraint": "constraint, δ", "clipping": "clipping, threshold", "none": "none"}
STYLE = """body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #111; background: #fff }
figure { margin: 0; overflow-x: auto }
figcaption { max-width: 62em; margin-bottom: 1em }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; white-space: nowrap }
th, td { padding: .3em .7em; text-align: right; font-variant-numeric: tabular-nums }
th { font-weight: 500 } tr > th { text-align: left } thead th { text-align: right }
thead tr:first-child th { text-align: center } thead tr:last-child { border-bottom: 1px solid }
tr.rule { border-top: 1px solid #999 } tr.paper { color: #555 } b { font-weight: 700 }"""


@dataclass(frozen=True)
class Cell:
    """One number as shown; `text` uses ± and the paper's symbols."""

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
class Rendered:
    """A table ready to be written in any format."""

    caption: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # method as shown, its values
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, settings: Sequence[Setting], caption: str, paper: Paper) -> "Rendered":
        """Lay out a tidy table (`tables.make_table`); the best mean of each row is marked."""
        names = [setting_name(method, value) for method, value in settings]
        quantities = list(dict.fromkeys(table["quantity"]))
        sources = list(dict.fromkeys(table["source"]))
        rows = []
        for source in sources:
            mine = table[table["source"] == source]
            label = source if source == "ours" else _paper_label(mine, table, paper)
            first = mine[mine["quantity"] == quantities[0]].set_index("setting")["success"]
            shares = tuple(Cell(_percent(first.get(name))) for name in names)
            rows.append(Row("success rate", source, label, shares))
            for quantity in quantities:
                part = mine[mine["quantity"] == quantity].set_index("setting")
                rows.append(Row(quantity, source, label, _cells(part, names)))
        order = ["success rate", *quantities]
        rows.sort(key=lambda row: order.index(row.quantity))  # stable: ours before the paper's
        return cls(caption, column_groups(settings), tuple(rows))


def column_groups(settings: Sequence[Setting]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Heads of columns that are settings: method as shown, its values."""
    return tuple(
        (GROUPS[method], tuple("" if value is None else f"{value:g}" for _, value in members))
        for method, members in groupby(settings, key=lambda setting: setting[0])
    )


def to_markdown(table: Rendered) -> str:
    """GitHub-flavoured Markdown; group names are folded into the column heads."""
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


def to_html(table: Rendered) -> str:
    """A page of its own that needs nothing else and scrolls sideways on a narrow screen."""
    group_cells = "".join(
        f'<th colspan="{len(values)}" scope="colgroup">{g}</th>' for g, values in table.groups
    )
    value_cells = "".join(f'<th scope="col">{v}</th>' for _, values in table.groups for v in values)
    lines = []
    for row in _without_repeats(table.rows):
        cells = "".join(f"<td><b>{c.text}</b></td>" if c.best else f"<td>{c.text}</td>" for c in row.cells)
        classes = " ".join(filter(None, ("rule" if row.quantity else "", row.source)))
        lines.append(f'<tr class="{classes}"><th>{row.quantity}</th><th>{row.label}</th>{cells}</tr>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(table.caption.split(':')[0])}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f"<figure>\n<figcaption>{html.escape(table.caption)}</figcaption>\n<table>\n<thead>\n"
        f'<tr><th colspan="2"></th>{group_cells}</tr>\n<tr><th colspan="2"></th>{value_cells}</tr>\n'
        "</thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>\n</figure>\n</body>\n</html>\n"
    )


def to_latex(table: Rendered) -> str:
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


def _paper_label(mine: pd.DataFrame, table: pd.DataFrame, paper: Paper) -> str:
    theirs = paper.tables[mine["corpus"].iloc[0]]
    other = (
        "" if theirs.corpus in set(table.loc[table["source"] == "ours", "corpus"]) else f" ({theirs.corpus})"
    )
    return f"paper{other}{theirs.mark.symbol}"


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
            # The paper's spreads are shown with the digits they are known with.
            paper = row["source"] == "paper"
            text += f" ± {row['sd']:g}" if paper else f" ± {row['sd']:.{2 if nll else 1}f}"
        cells.append(Cell(text, best=bool(row["mean"] == lowest)))
    return tuple(cells)


def _without_repeats(rows: Sequence[Row]) -> list[Row]:
    """The quantity is named on its first row only."""
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
}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
