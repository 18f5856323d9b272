"""The run directory: the one source of truth about a run.

`<root>/runs/<corpus>/<setting>/seed-<k>/` holds `history.csv`, `steps.csv`, `model.safetensors` and, written last,
`run.json`: a directory without it is not a finished run. It holds the SHA-256 of the other files and of itself, so that
a damaged or edited file is never taken for a measurement.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spectralgru.errors import InputError
from spectralgru.files import atomic_path, sha256, write_text
from spectralgru.seal import is_whole, sealed_json
from spectralgru.setting import Method, Setting
from spectralgru.shape import check_fields
from spectralgru.weights_file import safetensors

Status = Literal["finished", "diverged"]

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
SEAL = "sha256"  # of `run.json`
MODEL = "model.safetensors"
TRACES = ("history.csv", "steps.csv")
RUN_FILES = (*TRACES, MODEL)  # beside `run.json`
UNDER_WAY = "history.partial.csv"  # history of a run that will replace a recorded one
STEP_COLUMNS = ("step", "epoch", "grad_norm", "sigma_max", "spectral_radius", "growth")  # docs/method.md


def run_path(root: Path | str, corpus: str, method: Method, value: float | None, seed: int) -> Path:
    """Directory of the run with this setting and seed below `root` (`results/<scale>`)."""
    return Path(root) / "runs" / corpus / Setting(method, value).name / f"seed-{seed}"


@dataclass(frozen=True)
class Run:
    """What `run.json` says.

    Attributes:
        corpus: its name.
        method: with `value`, the setting.
        value: a delta (constraint, spectral_norm), a threshold, a strength (weight_decay), or None.
        seed: of weights, order and dropout.
        scale: "quick" or "paper".
        status: "finished" or "diverged".
        metric: of `best` and `final`: "perplexity", or "nll" in nats per time step.
        best: `epoch`, `valid_loss`, `valid`, `test_loss`, `test` at the best validation epoch; losses in nats.
        final: the same at the last epoch.
        diverged: `epoch`, `step`, `reason`, or None.
        spectrum: `initial` and `final` singular values of W_hh, one list per layer.
        settings: `model`, `training`, `data`, as in params.yaml.
        key: hash of everything that determines the run.
        data_sha256: of the prepared corpus.
        git_commit: of the code.
        versions: of Python and packages.
        host: the machine.
        device: "cpu" or a GPU's name.
        threads: of the process.
        started: ISO 8601, UTC.
        wall_seconds: of the process; replicas trained together share it.
        replicas: how many replicas were trained together.
        files: SHA-256 of `RUN_FILES`; empty in old records.
    """

    corpus: str
    method: Method
    value: float | None
    seed: int
    scale: str
    status: Status
    metric: Literal["perplexity", "nll"]
    best: dict[str, float] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)
    diverged: dict[str, Any] | None = None
    spectrum: dict[str, list[list[float]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    data_sha256: str = ""
    git_commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    host: str = ""
    device: str = ""
    threads: int = 1
    started: str = ""
    wall_seconds: float = 0.0
    replicas: int = 1
    files: dict[str, str] = field(default_factory=dict)

    @property
    def setting(self) -> str:
        """Name of the setting, as in paths."""
        return Setting(self.method, self.value).name


def write_run(
    directory: Path | str,
    run: Run,
    history: Sequence[Mapping[str, float]],
    steps: Sequence[Mapping[str, float]],
    weights: Mapping[str, np.ndarray],
) -> None:
    """Write the four files of a run. They are moved into place once all are written, `run.json` last."""
    directory = Path(directory)
    with ExitStack() as stack:  # moves the files into place in reverse order
        record = stack.enter_context(atomic_path(directory / "run.json"))
        paths = {name: stack.enter_context(atomic_path(directory / name)) for name in RUN_FILES}
        paths["history.csv"].write_text(_csv(HISTORY_COLUMNS, history), encoding="utf-8")
        paths["steps.csv"].write_text(_csv(STEP_COLUMNS, steps), encoding="utf-8")
        paths[MODEL].write_bytes(safetensors(weights))
        files = {name: sha256(path) for name, path in paths.items()}
        record.write_text(sealed_json(asdict(replace(run, files=files)), SEAL), encoding="utf-8")
    (directory / UNDER_WAY).unlink(missing_ok=True)


def write_record(directory: Path | str, run: Run) -> None:
    """Write `run.json` alone, for a run known only by its record, or whose other files exist already."""
    write_text(Path(directory) / "run.json", sealed_json(asdict(run), SEAL))


def write_history(directory: Path | str, history: Sequence[Mapping[str, float]]) -> None:
    """Write the epochs of a run so far, to show its progress.

    If the directory already has a record, for example of other settings, its files stay until the run has ended.
    """
    name = UNDER_WAY if (Path(directory) / "run.json").exists() else TRACES[0]
    write_text(Path(directory) / name, _csv(HISTORY_COLUMNS, history))


def read_run(directory: Path | str) -> Run:
    """Read `run.json` of a run.

    Args:
        directory: the run's, `results/<scale>/runs/<corpus>/<setting>/seed-<k>`.

    Raises:
        InputError: it is missing, damaged, edited, or belongs to another run.
    """
    path = Path(directory) / "run.json"
    try:
        content = path.read_bytes()
        record = json.loads(content)
        seal = record.pop(SEAL, None)
        run = Run(**record)
        if (run.files or seal) and not (is_whole(content) or seal == _seal_of_old(record)):
            raise ValueError("its content does not match its SHA-256")
        check_fields(run)
        place, own = path.absolute().parts[-5:-1], ("runs", run.corpus, run.setting, f"seed-{run.seed}")
        if place[0] == "runs" and place != own:
            raise ValueError(f"it belongs to {run.corpus} {run.setting} seed {run.seed}")
        return run
    except FileNotFoundError:
        raise InputError(f"{path}: no such run; train it first, or name a finished run directory") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a run record, or damaged or edited ({error}); train the run again"
        ) from None


def _seal_of_old(record: Mapping[str, Any]) -> str:
    """The seal of older records, which came last and did not depend on the layout."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def check_files(directory: Path | str, run: Run, names: Iterable[str] = RUN_FILES) -> None:
    """Raise InputError unless these files of a run exist and match its record.

    Old records lack the SHA-256 of some files, which then cannot be checked.
    """
    for name in names:
        path, digest = Path(directory) / name, run.files.get(name)
        try:
            whole = digest is None or sha256(path) == digest
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); train the run again") from None
        if not whole:
            raise InputError(
                f"{path}: damaged or edited, its SHA-256 is not that of run.json; train the run again"
            )


def files_here(directory: Path | str) -> list[str]:
    """The files of a run to check: `TRACES`, and the model unless the run was copied without it."""
    return [*TRACES, *([MODEL] if (Path(directory) / MODEL).exists() else [])]


def is_finished(directory: Path | str, key: str | None = None) -> bool:
    """Whether the directory holds exactly this run (None: any run) and every file is as it was written."""
    try:
        run = read_run(directory)
        if key not in (None, run.key) or not run.files.keys() >= set(RUN_FILES):
            return False
        check_files(directory, run)
    except InputError:
        return False
    return True


def summed_up(runs: Sequence[Run]) -> dict[str, Any]:
    """Content of `setting.json`, which sums up the runs of a setting and lies beside them."""
    lines = [{"seed": r.seed, "status": r.status, "key": r.key, "best": r.best} for r in runs]
    return {"corpus": runs[0].corpus, "setting": runs[0].setting, "runs": lines}


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([f"{row[c]:.9g}" for c in columns])
    return text.getvalue()
