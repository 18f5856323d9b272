"""The settings of the experiment `beyond` in params.yaml."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt

from spectralgru.pipeline.experiments.plain_loop.job import Optimizer
from spectralgru.pipeline.schema import (
    CorpusName,
    Delta,
    Positive,
    Seeds,
    Strict,
    distinct,
)
from spectralgru.training.settings import DataSettings, ModelSettings, Schedule

Rates = Annotated[list[Positive], Field(min_length=1), AfterValidator(distinct)]


class BeyondOn(Strict):
    """The baselines of one corpus; batches as in the corpus' settings."""

    data: DataSettings = DataSettings()
    model: ModelSettings
    epochs: PositiveInt
    schedule: Schedule
    rates: dict[Optimizer, Rates] = Field(
        description="initial learning rates; every baseline is tried at all of its optimiser's and shown at its best"
    )
    delta: Delta = Field(description="of the constraint, and of spectral_norm")
    threshold: Positive = Field(description="of clipping")
    decays: Annotated[list[Positive], AfterValidator(distinct)] = Field(
        description="strengths of weight decay on the candidate's W_hh"
    )
    depths: Annotated[list[PositiveInt], AfterValidator(distinct)] = Field(
        description="further numbers of layers, constrained and clipped"
    )


class Beyond(Strict):
    """Baselines that the paper does not have: other parametrisations, cells, optimisers and depths."""

    seeds: Seeds = Field(description="the first one chooses the learning rate")
    timed_steps: PositiveInt = Field(30, description="training steps timed for each baseline")
    corpora: dict[CorpusName, BeyondOn]
