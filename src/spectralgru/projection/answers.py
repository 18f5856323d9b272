"""The projections of several matrices side by side: what they ask for at the same time is computed at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spectralgru.projection.clip import Clipped, Whole, clip
from spectralgru.projection.native import computed, usable
from spectralgru.projection.state import Outcome
from spectralgru.projection.subspace import Found, Search, search


@dataclass(frozen=True)
class Question:
    """What a projection needs to know, and how it goes on with the answer."""

    asked: Search | Whole
    then: Callable[[Any], "Question | Outcome"]


def outcomes(projections: Sequence[Question | Outcome]) -> list[Outcome]:
    """Answer their questions until none is left."""
    states = list(projections)
    while waiting := [(i, state) for i, state in enumerate(states) if isinstance(state, Question)]:
        answers = _answers([question.asked for _, question in waiting])
        for (i, question), answer in zip(waiting, answers, strict=True):
            states[i] = question.then(answer)
    return [state for state in states if isinstance(state, Outcome)]


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
