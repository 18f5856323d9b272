"""What determines a run, as plain data: built by `pipeline.params`, used by the trainer, kept in `run.json`."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

from spectralgru.files import sha256_of_all
from spectralgru.resources import PACKAGE
from spectralgru.setting import Method, Setting

SOURCES = (
    "diagnosis/cells.py",
    "diagnosis/gru_growth.py",
    "diagnosis/lyapunov.py",
    "spectral.py",
    "projection/*.cpp",
    "projection/*.h",
    "projection/*.py",
    "recurrent/*.cpp",
    "recurrent/*.h",
    "recurrent/*.py",
    "training/**/*.py",
)


def _number(about: str, **bounds: float) -> dict[str, Any]:
    """Metadata of a field, in the form that pydantic, which reads params.yaml, understands."""
    return {"description": about, "strict": True, **bounds}


COUNT = {"ge": 1, "lt": 2**31}
SEED = {"ge": 0, "lt": 2**31}
NAME = {"pattern": r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"}  # not a path
Precision = Literal["float32", "tf32", "bfloat16"]
VALUES: dict[str, dict[str, float]] = {"constraint": {"gt": 0, "lt": 2}, "clipping": {"gt": 0}}  # of methods


class _Settings:
    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": False, "allow_inf_nan": False}


@dataclass(frozen=True)
class DataSettings(_Settings):
    """The part of a corpus that is used; None means all of it."""

    train: int | None = field(default=None, metadata=_number("tokens (words) or tunes (notes)", **COUNT))
    valid: int | None = field(default=None, metadata=_number("the same", **COUNT))
    test: int | None = field(default=None, metadata=_number("the same", **COUNT))
    vocabulary: int | None = field(
        default=None,
        metadata=_number("number of types (words only); rarer ones become <unk>", ge=3, lt=2**31),
    )


@dataclass(frozen=True)
class ModelSettings(_Settings):
    """First layer -> GRU stack -> output layer."""

    hidden_size: int = field(metadata=_number("units of each GRU layer", **COUNT))
    num_layers: int = field(default=1, metadata=_number("GRU layers", **COUNT))
    input_scale: float = field(default=0.01, metadata=_number("factor on the first layer's output", gt=0))
    dropout: float = field(default=0.5, metadata=_number("on the non-recurrent connections", ge=0, lt=1))
    init_scale: float = field(
        default=1.0, metadata=_number("Gaussian weights have variance init_scale / hidden_size", gt=0)
    )


@dataclass(frozen=True)
class Schedule(_Settings):
    """Learning-rate schedule.

    `decay`: constant for `patience` epochs, then divided by `factor` every epoch.
    `plateau`: divided by `factor` when validation has not improved for `patience` epochs; stops below `minimum`.
    """

    kind: Literal["decay", "plateau"]
    patience: int = field(
        metadata=_number("epochs at the first rate (decay) or without improvement (plateau)", **COUNT)
    )
    factor: float = field(metadata=_number("the rate is divided by it", gt=1))
    minimum: float = field(default=0.0, metadata=_number("plateau: training stops below this rate", ge=0))


@dataclass(frozen=True)
class TrainingSettings(_Settings):
    """Plain SGD on truncated back-propagation through time."""

    epochs: int = field(metadata=_number("passes over the training data, at most", **COUNT))
    learning_rate: float = field(
        metadata=_number("on the loss summed over steps and averaged over the batch", gt=0)
    )
    schedule: Schedule
    batch_size: int = field(default=20, metadata=_number("sequences a batch", **COUNT))
    bptt_steps: int = field(
        default=35, metadata=_number("steps of truncated back-propagation through time", **COUNT)
    )
    trace_every: int = field(
        default=10, metadata=_number("steps between two measurements of the spectral radius", **COUNT)
    )
    precision: Precision = field(
        default="float32",
        metadata={
            "description": "of the factors of matrix products in training: tf32 on GPUs, all products; bfloat16, all"
            " products outside the recurrence"
        },
    )
    gates: float | None = field(
        default=None,
        metadata=_number("constrained runs: bound on sigma_1 of W_hr and W_hz too", ge=1e-6, lt=1e6),
    )


@dataclass(frozen=True)
class Replica:
    """One run, by the settings that may differ between the runs of a job."""

    method: Method
    value: float | None  # delta (constraint), threshold (clipping), None (none)
    seed: int = field(metadata=SEED)
    learning_rate: float = field(metadata={"gt": 0})

    @property
    def setting(self) -> str:
        """Name of the setting, as in paths."""
        return Setting(self.method, self.value).name


@dataclass(frozen=True)
class Job:
    """Runs on one corpus, trained together, that share everything but method, value, seed and learning rate."""

    corpus: str = field(metadata=NAME)
    scale: str = field(metadata=NAME)
    data: DataSettings
    model: ModelSettings
    training: TrainingSettings
    replicas: tuple[Replica, ...]

    def settings(self) -> dict[str, Any]:
        """What the runs share, as JSON-ready data."""
        return {"data": asdict(self.data), "model": asdict(self.model), "training": asdict(self.training)}

    def key(self, replica: Replica, data_sha256: str) -> str:
        """Hash of everything that determines the run of `replica`: settings, data and the trainer's code."""
        determined = [self.corpus, self.settings(), asdict(replica), data_sha256, code_sha256()]
        return hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """Hash of the source files that decide what a training computes (not of the tables, figures or workflow)."""
    return sha256_of_all(PACKAGE, SOURCES)
