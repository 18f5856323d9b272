"""An experiment: parts that are made one by one, and a conclusion drawn from all of them.

A part leaves `parts/<corpus>/<name>.json` with its key, a hash of what determines it. The conclusion leaves tables,
figures and, last, `summary.json`: the question, the answer in sentences made from the numbers, and the names of the
files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from pydantic import BaseModel

from spectralgru.errors import InputError
from spectralgru.files import sha256_of_all, write_text
from spectralgru.pipeline.params import Params
from spectralgru.pipeline.params.experiments import NAMES, ExperimentName, Readings
from spectralgru.pipeline.provenance.record import results_sha256
from spectralgru.pipeline.results.render import FORMS, Fragment
from spectralgru.pipeline.side_files import read_as
from spectralgru.pipeline.summary import write_summary
from spectralgru.records import is_finished, run_path
from spectralgru.seal import sealed_json
from spectralgru.training.data.dataset import load
from spectralgru.training.settings import Job

Name = ExperimentName | Readings
EVERY: tuple[Name, ...] = (*NAMES, "readings")
FOLDERS = {"beyond": "remedies"}  # where the folder has another name
On = TypeVar("On")  # settings of an experiment on one corpus


@dataclass(frozen=True)
class Part:
    """A piece of an experiment that is made by itself."""

    corpus: str
    name: str  # as in file names

    def record(self, out: Path) -> Path:
        """The record of the part in the experiment's folder."""
        return out / "parts" / self.corpus / f"{self.name}.json"


@dataclass(frozen=True)
class Means:
    """What a part is made from, and with which resources; see `training.launch.train_in`."""

    data: Path
    out: Path  # the experiment's folder, results/<scale>/experiments/<name>
    checkpoints: Path
    processes: int = 1
    gpus: int = 0
    device: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Answer:
    """The result of an experiment, with names of files in its folder."""

    title: str
    answer: Sequence[str]  # sentences
    tables: Sequence[Fragment]  # their files lie beside the summary
    figures: Sequence[str]  # names of the SVG files; a pdf lies beside each
    claims: Sequence[Mapping[str, Any]] = ()  # records as in claims.json


class _Record(BaseModel):
    key: str
    files: list[str] = []


class Question(Protocol):
    """An experiment is a module with these functions. The workflow calls the first two whenever it plans."""

    def parts(self, params: Params) -> list[Part]:
        """All parts, for the corpora that params.yaml chooses."""

    def key(self, params: Params, part: Part, data_sha256: str) -> str:
        """Hash of everything that determines a part."""

    def make(self, params: Params, part: Part, means: Means) -> dict[str, Any]:
        """Train or measure; returns the result, with `files` (paths in the experiment's folder) if any."""

    def conclude(self, params: Params, out: Path) -> Answer:
        """Write tables and figures from the records of the parts."""


def question(name: Name) -> Question:
    """The experiment of this name."""
    return cast(
        Question, import_module(f"spectralgru.pipeline.experiments.{FOLDERS.get(name, name)}.question")
    )


def available(params: Params) -> dict[Name, list[Part]]:
    """The parts of every experiment that has settings for the chosen scale and corpora."""
    of_each = {name: question(name).parts(params) for name in EVERY}
    return {name: parts for name, parts in of_each.items() if parts}


def chosen_parts(params: Params, name: Name) -> list[Part]:
    """The parts of an experiment. Raises InputError if it has no settings, or none for the chosen corpora."""
    parts = question(name).parts(params)
    if not parts and name == "readings":
        raise InputError(f"{name}: no settings of {', '.join(params.chosen_corpora())} have any; add them")
    if not parts:
        settings = getattr(params.section.experiments, name)
        if settings is None:
            raise InputError(
                f"experiment {name}: {params.scale}.experiments has no settings for it; add them"
            )
        raise InputError(
            f"experiment {name}: no settings for {', '.join(params.chosen_corpora())} at scale {params.scale}; "
            f"it has them for {', '.join(settings.corpora)}"
        )
    return parts


def of_chosen_corpora(params: Params, corpora: Mapping[Any, On]) -> dict[str, On]:
    """An experiment's settings by corpus, for the corpora that params.yaml chooses."""
    return {corpus: corpora[corpus] for corpus in params.chosen_corpora() if corpus in corpora}


def make_part(params: Params, name: Name, part: Part, means: Means) -> dict[str, Any]:
    """Make one part unless its record shows that it is made already; returns the record."""
    corpus = load(means.data / "prepared" / f"{part.corpus}.npz")
    key = question(name).key(params, part, corpus.sha256)
    path = part.record(means.out)
    if not is_made(path, key, means.out):
        write_text(path, sealed_json({"key": key, **question(name).make(params, part, means)}))
    return read_record(path)


def conclude(params: Params, name: Name, out: Path) -> dict[str, Any]:
    """Write tables and figures, and `summary.json` last; returns its content. All parts must exist."""
    records = {part: read_record(part.record(out)) for part in chosen_parts(params, name)}
    answer = question(name).conclude(params, out)
    keys = {part: record["key"] for part, record in records.items()}
    files = [f"{table.name}.{suffix}" for table in answer.tables for suffix in FORMS]
    files += [f"{Path(name).stem}{suffix}" for name in answer.figures for suffix in (".svg", ".pdf")]
    return write_summary(out, asdict(answer), files, made_of(keys))


def key_of(job: Job, data_sha256: str) -> str:
    """Hash of the keys of all runs of a job."""
    return hashlib.sha256("".join(job.key(r, data_sha256) for r in job.replicas).encode()).hexdigest()


def train_part(job: Job, parallel: Literal["replicas", "batch"], folder: str, means: Means) -> dict[str, Any]:
    """Train the unfinished runs of a job in `folder` below the experiment's; returns the result for `make`."""
    from spectralgru.training.launch import train_in

    shared = (means.processes, parallel, means.gpus, means.device, means.threads)
    runs = train_in(job, means.data, means.out / folder, means.checkpoints, *shared)
    directories = [run_path(folder, r.corpus, r.method, r.value, r.seed) for r in runs]
    return {"files": [(directory / "run.json").as_posix() for directory in directories]}


def is_made(record: Path, key: str, out: Path) -> bool:
    """Whether a part's record has this `key`, and it and all runs that it names are as they were written."""
    part = read_as(_Record, record, sealed=True)
    return part is not None and part.key == key and all(is_finished((out / run).parent) for run in part.files)


def made_of(keys: Mapping[Part, str]) -> dict[str, str]:
    """What a conclusion depends on: parts and code, including the code of tables and figures."""
    parts = {f"{part.corpus}/{part.name}": key for part, key in keys.items()}
    return parts | {"code": sha256_of_all(Path(__file__).parent, ["**/*.py"]), "results": results_sha256()}


def read_record(path: Path) -> dict[str, Any]:
    """A part's record. Raises InputError if there is none, or it is not as it was written."""
    if read_as(_Record, path, sealed=True) is None:
        name = path.parents[2].name
        raise InputError(f"{path}: missing or damaged; make it with `spectralgru experiment {name}`")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
