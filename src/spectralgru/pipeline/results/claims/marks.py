"""How the record of a claim is shown: its statement with a mark, its verdict with a sign."""

from collections.abc import Mapping
from typing import Any

from spectralgru.pipeline.results.paper import load_paper

Record = Mapping[str, Any]  # one entry of claims.json
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?"}


def statement(claim: Record) -> str:
    """The statement with the mark that says how surely it is in the paper."""
    return f"{claim['statement']}{load_paper().marks[claim['provenance']].symbol}"
