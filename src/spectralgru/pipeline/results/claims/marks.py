"""How a claim's record is shown: its sentence with its mark, its verdict with a sign."""

from collections.abc import Mapping
from typing import Any

from spectralgru.pipeline.results.paper import load_paper

Record = Mapping[str, Any]  # one entry of claims.json
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?"}


def statement(claim: Record) -> str:
    """The sentence with the mark that says how surely it is in the paper."""
    return f"{claim['statement']}{load_paper().marks[claim['provenance']].symbol}"
