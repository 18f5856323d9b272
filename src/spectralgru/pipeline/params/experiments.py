"""The settings of each experiment in params.yaml, `<scale>.experiments.<name>`."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, PositiveInt

from spectralgru.pipeline.params.fields import (
    CorpusName,
    Delta,
    Methods,
    Positive,
    Seeds,
    Strict,
    distinct,
)
from spectralgru.training.settings import DataSettings, ModelSettings, Schedule

ExperimentName = Literal["learning_rate", "cost", "beyond"]
NAMES: tuple[ExperimentName, ...] = get_args(ExperimentName)
Readings = Literal["readings"]  # always made, if the settings of a corpus have any
SPAN = 2**7
Optimizer = Literal["SGD", "Adam"]


def _swept(rates: list[float]) -> list[float]:
    if any(low >= high for low, high in pairwise(rates)):
        raise ValueError("rates must ascend")
    if any(high > 2.0001 * low for low, high in pairwise(rates)):
        raise ValueError("no rate may be more than twice the one before")
    if not rates or rates[-1] < 0.9999 * SPAN * rates[0]:
        raise ValueError(f"the highest rate must be at least {SPAN} times (seven factors of two) the lowest")
    return rates


class RateSweep(Strict):
    """A sweep of the learning rate on one corpus; everything else is as in the corpus' settings."""

    epochs: PositiveInt
    rates: Annotated[list[Positive], AfterValidator(_swept)] = Field(description="initial learning rates")
    methods: Methods
    tolerance: Positive = Field(
        0.1, description="a rate works up to so far (relative) above the best validation metric of all"
    )


class LearningRate(Strict):
    """Does a lower learning rate repair clipping, and how wide is each method's range of rates?"""

    seeds: Seeds
    corpora: dict[CorpusName, RateSweep]


class CostOf(Strict):
    """A network whose training steps are timed; batches and learning rate are as in the corpus' settings."""

    data: DataSettings = DataSettings()
    model: ModelSettings
    deltas: Annotated[list[Delta], Field(min_length=1), AfterValidator(distinct)]
    warm_up: Annotated[int, Field(ge=0)] = Field(0, description="steps of training before the timed ones")
    steps: Annotated[int, Field(ge=2)] = Field(description="steps of training that are timed, for each delta")


class Cost(Strict):
    """What does the constraint cost by naive SVD, by truncated SVD and as it is done here, and what does clipping?"""

    corpora: dict[CorpusName, CostOf]


Strengths = Annotated[list[Positive], AfterValidator(distinct)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Rates = Annotated[list[Positive], Field(min_length=1), AfterValidator(distinct)]


class BeyondOn(Strict):
    """The baselines on one corpus; batches are as in the corpus' settings."""

    data: DataSettings = DataSettings()
    model: ModelSettings
    epochs: PositiveInt
    schedule: Schedule
    rates: dict[Optimizer, Rates] = Field(
        description="initial learning rates; every baseline is tried at all of its optimiser's and shown at its best"
    )
    delta: Delta = Field(description="of the constraint, and of spectral_norm")
    threshold: Positive = Field(description="of clipping")
    decays: Strengths = Field(description="strengths of weight decay on the candidate's W_hh")
    gates: Strengths = Field([], description="bounds on the gates' matrices, with the constraint")
    percentiles: Annotated[list[Percentile], AfterValidator(distinct)] = Field([], description="of AutoClip")
    scores: Strengths = Field([], description="z-scores above which ZClip clips")
    flossing: Strengths = Field([], description="strengths of flossing, on the scale of the summed loss")
    depths: Annotated[list[PositiveInt], AfterValidator(distinct)] = Field(
        description="further numbers of layers, constrained and clipped"
    )


class Beyond(Strict):
    """Baselines that the paper does not have: other parametrisations, cells, optimisers and depths."""

    seeds: Seeds = Field(description="the first one chooses the learning rate")
    timed_steps: PositiveInt = Field(30, description="training steps timed for each baseline")
    corpora: dict[CorpusName, BeyondOn]


class Experiments(Strict):
    """Settings of the experiments; one that is absent cannot be run at this scale."""

    learning_rate: LearningRate | None = None
    cost: Cost | None = None
    beyond: Beyond | None = None

    def corpora(self) -> Iterator[tuple[str, str]]:
        """Every experiment with each corpus it has settings for."""
        for name in NAMES:
            settings = getattr(self, name)
            for corpus in settings.corpora if settings else ():
                yield name, corpus
