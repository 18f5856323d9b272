"""Options shared by several commands."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spectralgru.pipeline.corpora import CORPORA


def _known(device: str | None) -> str | None:
    if device is not None:
        from spectralgru.training.distributed import device_named

        device_named(device)  # checked here rather than in every process that is started
    return device


Corpus = Annotated[
    str, typer.Option("--corpus", help=f"{', '.join(CORPORA)}, or one of your own (docs/data.md)")
]
Data = Annotated[Path, typer.Option("--data", help="folder of raw and prepared corpora")]
Params = Annotated[Path, typer.Option("--params", help="the file of parameters")]
Scale = Annotated[str | None, typer.Option("--scale", help="quick or paper; default: what params.yaml says")]
Corpora = Annotated[
    list[str] | None, typer.Option("--corpus", help="default: what params.yaml says; repeatable")
]
Out = Annotated[Path | None, typer.Option("--out", help="folder of results; default results/<scale>")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        envvar="SPECTRALGRU_DEVICE",
        callback=_known,
        help="cpu, cuda or cuda:N; default: cuda with --gpus, else cpu",
    ),
]

Method = Annotated[str, typer.Option("--method", help="constraint, clipping or none")]
Value = Annotated[float | None, typer.Option("--value", help="delta (constraint) or threshold (clipping)")]
Seeds = Annotated[
    list[int] | None, typer.Option("--seeds", help="default: what params.yaml says; repeatable")
]
Changes = Annotated[list[str] | None, typer.Option("--set", help="e.g. training.epochs=2; repeatable")]
Gpus = Annotated[
    int,
    typer.Option(
        "--gpus", min=0, help="GPUs to lock for this training, one per process; waits until they are free"
    ),
]
Processes = Annotated[
    int,
    typer.Option("--processes", min=1, help="processes that share the training; at least one per GPU"),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of all processes; default: what torch chooses"),
]
Checkpoints = Annotated[Path, typer.Option("--checkpoints", help="folder of checkpoints")]

DATA, PARAMS, CHECKPOINTS = Path("data"), Path("params.yaml"), Path(".checkpoints")


def load(path: Path, scale: str | None, changes: dict[str, Any] | None = None) -> Any:
    """The parameters of a scale, with changes."""
    from spectralgru.pipeline.params import load_params

    overrides: dict[str, Any] = dict(changes or {})
    return load_params(path, overrides if scale is None else overrides | {"scale": scale})


def load_for(corpus: str, data: Path, path: Path, scale: str | None) -> Any:
    """The parameters of a scale. An own corpus that they do not define is read from the record of its preparation."""
    from spectralgru.pipeline.corpora.prepare import read_record

    chosen = load(path, scale)
    own = read_record(data / "prepared" / f"{corpus}.json").get("own")
    if chosen.kind(corpus) is not None or own is None:
        return chosen
    return load(path, scale, {"own": {**chosen.model_dump(mode="json")["own"], corpus: own}})


def results(out: Path | None, scale: str) -> Path:
    """The folder of results: `--out`, or the workflow's folder for the scale."""
    return out or Path("results") / scale
