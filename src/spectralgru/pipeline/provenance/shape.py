"""The parts of a `provenance.json` that its readers rely on; none of them may be missing."""

from typing import Literal

from pydantic import BaseModel, model_validator


class _Artifact(BaseModel):
    sha256: str
    corpora: list[str]


class _Source(BaseModel):
    sha256: str
    source: str


class _Data(BaseModel):
    sha256: str
    raw: dict[str, _Source]
    counts: dict[str, dict[str, int]]
    licence: str


class _Subset(BaseModel):
    train: int | None
    valid: int | None
    test: int | None
    vocabulary: int | None


class _Model(BaseModel):
    hidden_size: int
    num_layers: int
    input_scale: float
    dropout: float
    init_scale: float


class _Schedule(BaseModel):
    kind: str
    patience: int
    factor: float
    minimum: float


class _Training(BaseModel):
    epochs: int
    learning_rate: float
    schedule: _Schedule
    batch_size: int
    bptt_steps: int


class _Settings(BaseModel):
    data: _Subset
    model: _Model
    training: _Training


class _Run(BaseModel):
    status: str
    metric: Literal["perplexity", "nll"]
    best: dict[str, float]
    final: dict[str, float] = {}
    key: str
    git_commit: str
    host: str
    device: str
    threads: int
    started: str
    wall_seconds: float
    versions: dict[str, str]
    settings: _Settings

    @model_validator(mode="after")
    def _results_are_whole(self) -> "_Run":
        if self.status == "finished" and not {"valid", "test"} <= self.best.keys():
            raise ValueError("best lacks a result")
        return self


class Provenance(BaseModel):
    """The whole file."""

    scale: str
    results_sha256: str
    artifacts: dict[str, _Artifact]
    data: dict[str, _Data]
    runs: dict[str, _Run]
    files: dict[str, str] = {}  # SHA-256 of the other files of `WRITTEN`
