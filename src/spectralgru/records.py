"""The run directory: the one source of truth of what a run did.

`<root>/runs/<corpus>/<setting>/seed-<k>/` holds `history.csv`, `steps.csv`, `model.safetensors` and, written last,
`run.json`: a directory without it is not a finished run.
"""

import csv
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spectralgru.errors import InputError
from spectralgru.files import atomic_path, write_json, write_text

Method = Literal["constraint", "clipping", "none", "spectral_norm", "orthogonal", "weight_decay"]
Status = Literal["finished", "diverged", "failed"]

HISTORY_COLUMNS = (
    "epoch",  # 1-based
    "learning_rate",
    "train_loss",  # nats per token (words) or per time step (notes)
    "valid_loss",
    "valid_metric",  # perplexity (words) or negative log-likelihood in nats per step (notes)
    "grad_norm_mean",
    "grad_norm_max",
    "sigma_max",  # largest singular value of W_hh over layers, at the epoch's end
    "saturated",  # number of singular values at the bound, all layers
    "spectral_radius",  # |lambda_1(J)|, largest over layers
    "projections_done",  # in this epoch, all layers
    "projections_skipped",
    "seconds",
)
STEP_COLUMNS = ("step", "epoch", "grad_norm", "sigma_max", "spectral_radius")


def setting_name(method: str, value: float | None) -> str:
    """Name of a setting in paths and wildcards: `constraint-0.2`, `clipping-5`, `none`."""
    return method if value is None else f"{method}-{value:g}"


def run_path(root: Path | str, corpus: str, method: str, value: float | None, seed: int) -> Path:
    """Where the run of one setting and seed lives below `root` (`results/<scale>`)."""
    return Path(root) / "runs" / corpus / setting_name(method, value) / f"seed-{seed}"


@dataclass(frozen=True)
class Run:
    """What `run.json` says."""

    corpus: str
    method: Method
    value: float | None  # delta (constraint, spectral_norm), threshold, strength (weight_decay) or None
    seed: int
    scale: str
    status: Status
    metric: Literal["perplexity", "nll"]
    best: dict[str, float] = field(default_factory=dict)  # epoch, valid_loss, valid, test_loss, test
    final: dict[str, float] = field(default_factory=dict)  # the same at the last epoch
    diverged: dict[str, Any] | None = None  # epoch, step, reason
    spectrum: dict[str, list[list[float]]] = field(default_factory=dict)  # initial, final: one list a layer
    settings: dict[str, Any] = field(default_factory=dict)  # model, training, data
    key: str = ""  # hash of everything that determines the run
    data_sha256: str = ""
    git_commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    host: str = ""
    device: str = ""
    threads: int = 1
    started: str = ""  # ISO 8601, UTC
    wall_seconds: float = 0.0  # of the process; replicas trained together share it
    replicas: int = 1  # how many were trained together

    @property
    def setting(self) -> str:
        """Name of the setting, as in paths."""
        return setting_name(self.method, self.value)


def write_run(
    directory: Path | str,
    run: Run,
    history: Sequence[Mapping[str, float]],
    steps: Sequence[Mapping[str, float]],
    weights: Mapping[str, np.ndarray],
) -> None:
    """Write the four files of a run, `run.json` last."""
    directory = Path(directory)
    write_history(directory, history)
    write_text(directory / "steps.csv", _csv(STEP_COLUMNS, steps))
    write_safetensors(directory / "model.safetensors", weights)
    write_json(directory / "run.json", asdict(run))


def write_history(directory: Path | str, history: Sequence[Mapping[str, float]]) -> None:
    """Show how far a run under way has come: its epochs so far; the record of an older run goes away."""
    directory = Path(directory)
    (directory / "run.json").unlink(missing_ok=True)
    write_text(directory / "history.csv", _csv(HISTORY_COLUMNS, history))


def read_run(directory: Path | str) -> Run:
    """Read `run.json` of a run directory."""
    path = Path(directory) / "run.json"
    try:
        return Run(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path}: no such run; train it first, or name a finished run directory") from None
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a run record ({error}); delete the directory and train it again"
        ) from None


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([f"{row[c]:.9g}" for c in columns])
    return text.getvalue()


def write_safetensors(path: Path | str, tensors: Mapping[str, np.ndarray]) -> None:
    """Write float32 arrays in the safetensors format: header length (u64), JSON header, raw little-endian data.

    By hand, because the trainer runs where only torch and numpy are installed; everyone else reads the file with
    the safetensors library.
    """
    header, data, offset = {}, [], 0
    for name, tensor in sorted(tensors.items()):
        raw = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        offset += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary:
        temporary.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
