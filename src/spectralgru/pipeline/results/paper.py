"""The paper's numbers, each block with the mark that says how surely it is known."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from spectralgru.errors import InputError
from spectralgru.pipeline.strict_yaml import read_yaml
from spectralgru.resources import resource

NAME = "paper.yaml"


@dataclass(frozen=True)
class Mark:
    """How surely a number is known."""

    name: str  # S, R, Q, U, or O: ours
    symbol: str  # what follows the number in a table
    meaning: str


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper; settings are named as in run directories."""

    corpus: str
    metric: Literal["perplexity", "nll"]
    mark: Mark
    trials: int | None
    setup: str  # including the symbols of its marks
    setup_marks: tuple[Mark, ...]
    success: dict[str, float]  # share of successful trials, 0 to 1
    valid: dict[str, tuple[float, float]]  # mean and standard deviation
    test: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Cost:
    """Seconds for one training on `corpus`, by method."""

    corpus: str
    mark: Mark
    unit: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Paper:
    """All numbers of the paper that this project shows."""

    citation: str
    marks: dict[str, Mark]
    tables: dict[str, PaperTable]
    stand_in: dict[str, str]
    settings: dict[str, dict[str, str]]  # by quantity, then by corpus; with the symbols of their marks
    cost: Cost

    def table_for(self, corpus: str) -> PaperTable | None:
        """The paper's table for `corpus` or the one it stands in for; None if the paper has none."""
        return self.tables.get(self.stand_in.get(corpus, corpus))


@cache  # every sentence of the claims asks for its mark
def load_paper(path: Path | None = None) -> Paper:
    """Read `resources/paper.yaml`. Raises InputError naming the file when it is missing or malformed."""
    path = path or resource(NAME)
    try:
        return _paper(read_yaml(path))
    except FileNotFoundError:
        raise InputError(
            f"{path}: the paper's numbers are missing; restore the file from the repository"
        ) from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not the paper's numbers ({error!r}); restore it from the repository"
        ) from None


def _paper(data: dict[str, Any]) -> Paper:
    marks = {name: Mark(name, m["symbol"], m["meaning"]) for name, m in data["marks"].items()}
    tables = {
        corpus: PaperTable(
            corpus=corpus,
            metric=t["metric"],
            mark=marks[t["provenance"]],
            trials=t["trials"],
            setup=_with_symbols(t["setup"], marks),
            setup_marks=tuple(mark for name, mark in marks.items() if f"[{name}]" in t["setup"]),
            success={s: float(share) for s, share in t["success"].items()},
            valid={s: (float(mean), float(sd)) for s, (mean, sd) in t["valid"].items()},
            test={s: (float(mean), float(sd)) for s, (mean, sd) in t["test"].items()},
        )
        for corpus, t in data["tables"].items()
    }
    cost = data["cost"]
    return Paper(
        citation=data["citation"],
        marks=marks,
        tables=tables,
        stand_in=data["stand_in"],
        settings={
            name: {corpus: _with_symbols(text, marks) for corpus, text in of_corpus.items()}
            for name, of_corpus in data["settings"].items()
        },
        cost=Cost(
            cost["corpus"],
            marks[cost["provenance"]],
            cost["unit"],
            {method: float(s) for method, s in cost["seconds"].items()},
        ),
    )


def _with_symbols(text: str, marks: dict[str, Mark]) -> str:
    for name, mark in marks.items():
        text = text.replace(f" [{name}]", mark.symbol)
    return text
