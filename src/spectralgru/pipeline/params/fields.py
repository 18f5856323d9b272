"""Parts of params.yaml: types of its fields, and the settings of one corpus.

The trainer's own settings are declared in `training.settings`, bounds and descriptions included.
"""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from spectralgru.errors import shown
from spectralgru.pipeline.corpora import CORPORA
from spectralgru.training.settings import SEED, VALUES, DataSettings, ModelSettings, TrainingSettings

Value = TypeVar("Value")


def _known(name: str, info: ValidationInfo) -> str:
    """Refuse unknown corpora; the context of the validation holds the names of the user's own."""
    known = [*CORPORA, *map(str, info.context or ())]
    if name not in known:
        raise ValueError(f"must be one of {', '.join(known)}, or be defined under own")
    return name


def _known_or_kind(name: str, info: ValidationInfo) -> str:
    return name if name in CORPORA.values() else _known(name, info)


CorpusName = Annotated[str, AfterValidator(_known)]
CorpusOrKind = Annotated[str, AfterValidator(_known_or_kind)]


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


ReadingName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class CorpusSettings(Strict):
    """All runs on one corpus."""

    data: DataSettings = DataSettings()
    model: ModelSettings
    readings: dict[ReadingName, ModelSettings] = Field(
        default_factory=dict, description="other models for the same runs, reported beside them"
    )
    training: TrainingSettings
    methods: Methods


def explain(error: ValidationError) -> str:
    """One line about the first fault: key, value, and what is allowed."""
    first = error.errors(include_url=False, include_context=False)[0]
    *place, last = first["loc"] or ("the file",)
    if place[:1] == ["own"] and len(place) > 2:
        del place[2]  # the kind of corpus it was taken for
    key = ".".join(map(_printable, [*place, last])).removesuffix(".[key]")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {key}; remove it or correct its name (allowed keys: workflow/schemas/params.schema.json)"
    if first["type"] == "missing":
        return f"key {key} is missing; add it"
    allowed = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    if isinstance(given, dict):
        return f"{key}: {allowed}"
    if isinstance(given, str) and first["type"] == "float_type" and _is_number(given):
        return f"{key} is {given!r}, text to YAML; write the number without quotes: 0.5 or 1e-4"
    return f"{key} is {shown(given)}: {allowed.replace('Input should', 'must')}"


def _printable(key: int | str) -> str:
    text = str(key)
    return text if text.isprintable() and len(text) < 80 else shown(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
