"""Parts of the models of params.yaml: field types and the settings of one corpus.

The trainer's own settings are declared in `training.settings`, bounds and descriptions included.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from spectralgru.training.settings import SEED, VALUES, DataSettings, ModelSettings, TrainingSettings

CorpusName = Literal["ptb", "nottingham", "chorales", "jsb_chorales", "musedata", "piano_midi"]
Value = TypeVar("Value")


def distinct(values: list[Value]) -> list[Value]:
    """Refuse a list with an entry twice."""
    if len(set(values)) < len(values):
        raise ValueError("every entry may appear once")
    return values


class Strict(BaseModel):
    """Unknown keys, other types, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]
Delta = Annotated[float, Field(**VALUES["constraint"])]
Seeds = Annotated[list[Annotated[int, Field(**SEED)]], Field(min_length=1), AfterValidator(distinct)]


class Methods(Strict):
    """What is compared."""

    constraint: Annotated[list[Delta], AfterValidator(distinct)] = Field(
        default_factory=list, description="deltas"
    )
    clipping: Annotated[list[Positive], AfterValidator(distinct)] = Field(
        default_factory=list, description="thresholds of the gradient norm"
    )
    none: bool = Field(True, description="train without constraint or clipping too")


class Experiment(Strict):
    """All runs on one corpus."""

    data: DataSettings = DataSettings()
    model: ModelSettings
    training: TrainingSettings
    methods: Methods
