"""Dates follow contents. Snakemake goes by dates and by a memory of its own; clones and `dvc pull` keep neither.

But results say what they were made from: a setting's summary names its runs' keys (hashes of settings, data and
code), `provenance.json` the runs and the code behind every table and figure. Before the workflow is planned, what is
as params.yaml and the code ask for is dated after its inputs, and what is not, before them. Missing files stay missing.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from spectralgru.files import sha256
from spectralgru.pipeline.corpora.recipe import FILE as RECIPE_FILE
from spectralgru.pipeline.corpora.recipe import RECIPE
from spectralgru.pipeline.params import Params
from spectralgru.pipeline.provenance.record import WRITTEN, artifacts, report_made_from, results_sha256
from spectralgru.pipeline.results.names import REPORT
from spectralgru.pipeline.sampling.dates import are_current
from spectralgru.pipeline.summary import SUMMARY
from spectralgru.records import is_finished, read_run, run_path, summed_up

OUTDATED = 1_000_000_000  # nanoseconds since 1970: older than anything (0 would mean "no date" to Snakemake)

Keys = Mapping[str, str]  # run directory, relative to results/<scale> -> key of the run asked for


def settle(params: Params, data: Path, root: Path, logs: Path) -> None:
    """Date what there is below `root` (`results/<scale>`), and its benchmarks below `logs`, by what it holds."""
    settle_corpora(params.chosen_corpora(), data)
    newest = 0
    expected: dict[str, Keys] = {}
    for corpus in params.chosen_corpora():
        prepared = data / "prepared" / f"{corpus}.npz"
        record = read_json(prepared.with_suffix(".json"))
        if not record:
            return  # nothing can be told before the corpora are there
        expected[corpus] = keys = run_keys(params, corpus, record["sha256"])
        for folder in sorted({path.rpartition("/")[0] for path in keys}):
            summary = root / folder / "setting.json"
            made = [summary, logs / "benchmarks" / "train" / f"{root.name}{folder.removeprefix('runs')}.tsv"]
            confirm(made, _summed_up(summary, root, keys), date_of(prepared))
            newest = max(newest, date_of(summary))
    _settle_results(root, expected, newest, logs / "benchmarks")


def settle_corpora(corpora: Iterable[str], data: Path) -> None:
    """Date prepared corpora by whether they were prepared as they would be today."""
    for corpus in corpora:
        record = data / "prepared" / f"{corpus}.json"
        today = read_json(record).get("recipe", RECIPE) == RECIPE  # none: prepared by other means
        confirm([record, record.with_suffix(".npz")], today, date_of(RECIPE_FILE))


def run_keys(params: Params, corpus: str, data_sha256: str) -> Keys:
    """Directory and key of every run of a corpus that is asked for."""
    job = params.job(corpus, params.settings(corpus))
    return {
        run_path("", corpus, r.method, r.value, r.seed).as_posix(): job.key(r, data_sha256)
        for r in job.replicas
    }


def _settle_results(root: Path, expected: Mapping[str, Keys], newest: int, benchmarks: Path) -> None:
    record = read_json(root / WRITTEN[0])
    found = {path: run["key"] for path, run in record.get("runs", {}).items()}
    shown = artifacts(list(expected))
    good = {path: _intact(root / path, path, record, shown[path], expected, found) for path in shown}
    date = max([newest, *(date_of(root / path) for path in good)])
    for path, confirmed in good.items():
        confirm([root / path], confirmed, date)
    confirm([root / name for name in WRITTEN], all(good.values()), date)
    samples = root / "samples"
    every = {path: key for keys in expected.values() for path, key in keys.items()}
    confirm([samples / SUMMARY], are_current(samples, every), newest)
    page = root / REPORT
    made_from = f'content="{report_made_from(root)}"'
    whole = all(good.values()) and page.exists() and made_from in _head(page)
    shown_in_page = [
        *(root / n for n in WRITTEN),
        samples / SUMMARY,
        *root.glob(f"experiments/*/{SUMMARY}"),
    ]
    latest = max([date, *map(date_of, shown_in_page)])
    confirm([page], whole, latest)
    for corpus, keys in expected.items():
        tracked = root / "tracking" / f"{corpus}.json"
        whole = all(good[path] for path in good if shown[path] == [corpus])
        confirm([tracked], whole and read_json(tracked).get("runs") == keys, date)
    if all(good.values()):
        measured = [*benchmarks.glob(f"*/{root.name}.tsv"), *benchmarks.glob(f"*/{root.name}/*.tsv")]
        confirm(measured, True, latest)


def _intact(
    file: Path,
    name: str,
    record: Mapping[str, Any],
    corpora: Sequence[str],
    expected: Mapping[str, Keys],
    found: Keys,
) -> bool:
    """Whether a table or figure is the one recorded, and shows the runs asked for by the code of today."""
    recorded = record.get("artifacts", {}).get(name)
    asked = {path: key for corpus in corpora for path, key in expected[corpus].items()}
    of_these = tuple(f"runs/{corpus}/" for corpus in corpora)
    return (
        file.exists()
        and recorded == {"sha256": sha256(file), "corpora": list(corpora)}
        and record.get("results_sha256") == results_sha256()
        and {path: key for path, key in found.items() if path.startswith(of_these)} == asked
    )


def _summed_up(summary: Path, root: Path, keys: Keys) -> bool:
    """Whether the runs asked for are there, every file as it was written, and the summary of a setting is theirs."""
    asked = {root / path: key for path, key in keys.items() if (root / path).parent == summary.parent}
    with ThreadPoolExecutor() as pool:  # hashing large models takes both time and turns: docs/reliability.md
        whole = all(pool.map(is_finished, asked, asked.values()))
    return whole and read_json(summary) == summed_up([read_run(path) for path in asked])


def _head(page: Path) -> str:
    with page.open(encoding="utf-8") as file:
        return file.read(1000)


def read_json(path: Path) -> dict[str, Any]:
    """What the file holds; empty if it is missing or no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def date_of(path: Path) -> int:
    """Modification date in nanoseconds since 1970; 0 if there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else 0


def confirm(paths: Iterable[Path], good: bool, not_before: int) -> None:
    """Date good files not before `not_before`, and others before everything."""
    for path in paths:
        if path.exists() and (not good or date_of(path) < not_before):
            date = not_before if good else OUTDATED
            os.utime(path, ns=(date, date))
