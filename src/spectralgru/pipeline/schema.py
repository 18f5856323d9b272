"""Parts of the models of params.yaml: field types and the settings of one corpus."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

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
Delta = Annotated[float, Field(gt=0, lt=2)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1), AfterValidator(distinct)]


class Data(Strict):
    """How much of the corpus is used; absent: all of it."""

    train: PositiveInt | None = Field(None, description="tokens (words) or tunes (notes)")
    valid: PositiveInt | None = None
    test: PositiveInt | None = None
    vocabulary: Annotated[int, Field(ge=3)] | None = Field(None, description="number of types (words only)")


class Model(Strict):
    """The network."""

    hidden_size: PositiveInt
    num_layers: PositiveInt = 1
    input_scale: Positive = Field(0.01, description="factor on the first layer's output")
    dropout: float = Field(0.5, ge=0, lt=1, description="on the non-recurrent connections")
    init_scale: Positive = Field(1.0, description="Gaussian weights have variance init_scale / hidden_size")


class Schedule(Strict):
    """Learning-rate schedule: `decay` or `plateau`."""

    kind: Literal["decay", "plateau"]
    patience: PositiveInt = Field(
        description="epochs at the first rate (decay) or without improvement (plateau)"
    )
    factor: float = Field(gt=1, description="the rate is divided by it")
    minimum: float = Field(0.0, ge=0, description="plateau: training stops below this rate")


class Training(Strict):
    """Plain SGD on truncated back-propagation through time."""

    epochs: PositiveInt
    batch_size: PositiveInt = 20
    bptt_steps: PositiveInt = Field(35, description="steps of truncated back-propagation through time")
    learning_rate: Positive
    schedule: Schedule
    trace_every: PositiveInt = Field(10, description="steps between two measurements of the spectral radius")


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

    data: Data = Data()
    model: Model
    training: Training
    methods: Methods
