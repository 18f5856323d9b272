"""What determines a run, as plain data: built by `pipeline.params`, obeyed by the trainer, kept in `run.json`."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from spectralgru.files import sha256_of_all
from spectralgru.records import Method, Setting
from spectralgru.resources import PACKAGE

SOURCES = (
    "spectral.py",
    "projection/*.py",
    "recurrent/*.cpp",
    "recurrent/*.py",
    "training/**/*.py",
)


@dataclass(frozen=True)
class DataSettings:
    """The part of a corpus that is used; None takes all of it."""

    train: int | None = None  # tokens (words) or tunes (notes)
    valid: int | None = None
    test: int | None = None
    vocabulary: int | None = None  # number of types (words); rarer ones become <unk>


@dataclass(frozen=True)
class ModelSettings:
    """First layer -> GRU stack -> output layer."""

    hidden_size: int
    num_layers: int = 1
    input_scale: float = 0.01  # factor on the first layer's output
    dropout: float = 0.5  # on the non-recurrent connections
    init_scale: float = 1.0  # variance of all Gaussian weights is init_scale / hidden_size


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule.

    `decay`: constant for `patience` epochs, then divided by `factor` every epoch.
    `plateau`: divided by `factor` when validation has not improved for `patience` epochs; stops below `minimum`.
    """

    kind: Literal["decay", "plateau"]
    patience: int
    factor: float
    minimum: float = 0.0


@dataclass(frozen=True)
class TrainingSettings:
    """Plain SGD on truncated back-propagation through time."""

    epochs: int
    learning_rate: float
    schedule: Schedule
    batch_size: int = 20
    bptt_steps: int = 35
    trace_every: int = 10  # steps between two measurements of the spectral radius


@dataclass(frozen=True)
class Replica:
    """One run: what may differ between the runs of a job."""

    method: Method
    value: float | None  # delta (constraint), threshold (clipping), None (none)
    seed: int
    learning_rate: float

    @property
    def setting(self) -> str:
        """Name of the setting, as in paths."""
        return Setting(self.method, self.value).name


@dataclass(frozen=True)
class Job:
    """Runs of one corpus that share everything but method, value, seed and learning rate, trained together."""

    corpus: str
    scale: str
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


def job_from_dict(value: dict[str, Any]) -> Job:
    """Rebuild a job from `dataclasses.asdict` of it."""
    training = dict(value["training"])
    training["schedule"] = Schedule(**training["schedule"])
    return Job(
        corpus=value["corpus"],
        scale=value["scale"],
        data=DataSettings(**value["data"]),
        model=ModelSettings(**value["model"]),
        training=TrainingSettings(**training),
        replicas=tuple(Replica(**r) for r in value["replicas"]),
    )


@cache
def code_sha256() -> str:
    """Hash of the source files that decide what a training computes (not of the tables, figures or workflow)."""
    return sha256_of_all(PACKAGE, SOURCES)
