"""Provenance for readers: the runs behind the cells of a table, the lines of a figure or a verdict, as text."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from spectralgru.errors import InputError, RunError
from spectralgru.files import sha256
from spectralgru.pipeline.provenance.page import Record, common
from spectralgru.pipeline.provenance.record import WRITTEN
from spectralgru.pipeline.provenance.shape import Provenance
from spectralgru.pipeline.results.names import CLAIMS, NUMBERS
from spectralgru.pipeline.results.outcome import Outcome, outcome_of
from spectralgru.pipeline.side_files import read_as
from spectralgru.records import run_path
from spectralgru.setting import Setting


def read_record(root: Path) -> Record:
    """Read `root/provenance.json`. Raises InputError if it is missing, damaged or a different kind of file."""
    path = root / WRITTEN[0]
    if read_as(Provenance, path) is None:
        raise InputError(f"{path}: missing, or not a provenance record; make it with `snakemake`")
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def find(record: Record, name: str) -> list[str]:
    """The artifacts called `name`: a path, a file name, or a name without suffix (`table1`, `ptb-trajectory`)."""
    asked = Path(name)
    paths = [path for path in record["artifacts"] if asked.as_posix().endswith(path)]
    paths = paths or [
        path for path in record["artifacts"] if asked.name in (Path(path).name, Path(path).stem)
    ]
    if not paths:
        known = ", ".join(dict.fromkeys(Path(path).stem for path in record["artifacts"]))
        raise InputError(
            f"{name}: not a table, figure or claims of scale {record['scale']}; choose from {known}"
        )
    return paths


def explain(
    root: Path,
    record: Record,
    paths: Sequence[str],
    settings: Mapping[str, Sequence[Setting]],
    seeds: Sequence[int],
) -> Iterator[str]:
    """Lines that lead from the artifacts `paths` to runs, commit, parameters, data, machine and versions.

    Raises RunError if an artifact is not the recorded one, or a cell of a table disagrees with its runs.
    """
    for path in paths:
        if not (root / path).exists() or sha256(root / path) != record["artifacts"][path]["sha256"]:
            raise RunError(f"{root / path}: not the file whose provenance is recorded; run `snakemake`")
        yield f"{root / path}  sha256 {record['artifacts'][path]['sha256']}"
    corpora = record["artifacts"][paths[0]]["corpora"]
    for corpus in corpora:
        runs = {p: run for p, run in record["runs"].items() if p.startswith(f"runs/{corpus}/")}
        yield from (f"  {name:9} {value}" for name, value in common(record, corpus, list(runs.values())))
        if paths[0] in CLAIMS:
            yield from _verdicts(root, corpus, record["runs"])
        elif paths[0].startswith("tables/"):
            yield from _cells(root, corpus, paths[0], settings[corpus], seeds, runs)
        else:
            yield from _panels(root, corpus, paths[0], settings[corpus], seeds, runs)


def _cells(
    root: Path, corpus: str, path: str, settings: Sequence[Setting], seeds: Sequence[int], runs: Record
) -> Iterator[str]:
    csv = root / "tables" / f"{Path(path).stem}.csv"
    table = pd.read_csv(csv) if csv.exists() and csv.name not in NUMBERS else None
    for setting in settings:
        name = setting.name
        of_setting = {p: runs[p] for seed in seeds if (p := run_path("", corpus, *setting, seed).as_posix())}
        good = [run for run in of_setting.values() if _outcome(run) == "succeeded"]
        cells = [f"success {len(good)} of {len(of_setting)}"]
        for split, word in (("valid", "validation"), ("test", "test")):
            values = [run["best"][split] for run in good]
            mean = statistics.fmean(values) if values else None
            cells.append(f"{word} {_with_spread(values)}")
            if table is not None:
                ours = table[(table["setting"] == name) & (table["source"] == "ours")]
                cell = ours[ours["quantity"].str.startswith(word)]["mean"].iloc[0]
                if (mean is None) != pd.isna(cell) or (mean and abs(cell - mean) > 1e-5 * abs(mean)):
                    raise RunError(f"{csv}: {name} shows {cell}, its runs say {mean}; run `snakemake`")
        yield f"  {name}: {', '.join(cells)}"
        yield from (_line(root, p, run) for p, run in of_setting.items())


def _verdicts(root: Path, corpus: str, runs: Record) -> Iterator[str]:
    for claim in json.loads((root / CLAIMS[0]).read_text(encoding="utf-8")):
        if claim["corpus"] == corpus:
            yield f"  {claim['id']}: {claim['verdict']}. {claim['evidence']['summary']}"
            yield from (_line(root, path, runs[path]) for path in claim["evidence"]["runs"])


def _panels(
    root: Path, corpus: str, path: str, settings: Sequence[Setting], seeds: Sequence[int], runs: Record
) -> Iterator[str]:
    from spectralgru.pipeline.results.figures import shown

    before = None
    for setting, seed in shown(Path(path).stem.removeprefix(f"{corpus}-"), settings, seeds):
        if setting != before:
            yield f"  {setting.name}"
        before = setting
        directory = run_path("", corpus, *setting, seed).as_posix()
        yield _line(root, directory, runs[directory])


def _line(root: Path, path: str, run: Record) -> str:
    values = "".join(
        f", {split} {run['best'][split]:.5g}" for split in ("valid", "test") if split in run["best"]
    )
    return f"    {root / path}  {_outcome(run)}{values}, started {run['started']}, key {run['key'][:12]}"


def _outcome(run: Record) -> Outcome:
    return outcome_of(run["status"], run["best"], run.get("final", {}))


def _with_spread(values: Sequence[float]) -> str:
    if not values:
        return "n/a"
    return f"{statistics.fmean(values):.5g}" + (
        f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    )
