"""The projections of several matrices side by side: what they ask for at the same time is computed at once."""

from collections.abc import Generator, Sequence
from typing import Any

from spectralgru.projection.clip import Clipped, Whole, clip
from spectralgru.projection.native import computed, usable
from spectralgru.projection.state import Outcome
from spectralgru.projection.subspace import Found, Search, search

# Asks for searches and decompositions, is sent their results, and returns its outcome.
Projection = Generator[Search | Whole, Any, Outcome]


def answered(projections: Sequence[Projection]) -> list[Outcome]:
    """Run the projections to their ends."""
    outcomes: dict[int, Outcome] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(projections)))
    while answers:
        asked = {}
        for i, answer in answers.items():
            try:
                asked[i] = projections[i].send(answer)
            except StopIteration as end:
                outcomes[i] = end.value
        answers = dict(zip(asked, _answers(list(asked.values())), strict=True))
    return [outcomes[i] for i in range(len(projections))]


def _answers(asked: Sequence[Search | Whole]) -> list[Any]:
    native = [i for i, one in enumerate(asked) if usable(one)]
    answers = dict(zip(native, computed([asked[i] for i in native]), strict=True)) if native else {}
    for i, one in enumerate(asked):
        fails = isinstance(one, Search) and one.bound is not None  # others do only by an overflow
        if i not in answers or (answers[i] is None and not fails):
            answers[i] = by_torch(one)
    return [answers[i] for i in range(len(asked))]


def by_torch(asked: Search | Whole) -> Found | Clipped | None:
    """The result of one."""
    if isinstance(asked, Search):
        return search(asked)
    weight = asked.weight[None]
    return clip(weight, weight.new_full((1,), asked.bound), "eigh")
