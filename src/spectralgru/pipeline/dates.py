"""Dates files by their contents. Snakemake relies on dates and its own metadata, which clones and `dvc pull` do not
keep.

But results say what they were made from. The summary of a setting names the keys of its runs (hashes of settings, data
and code); `provenance.json` names the runs and the code behind every table and figure. Before the workflow is planned,
files that agree with params.yaml and the code are dated after their inputs. Other files, and doubtful ones, are dated
before them. Missing files stay missing.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spectralgru.files import json_text
from spectralgru.pipeline.corpora.own import Own
from spectralgru.pipeline.corpora.recipe import FILE as RECIPE_FILE
from spectralgru.pipeline.corpora.recipe import RECIPE
from spectralgru.pipeline.dating import Dates, date_of
from spectralgru.pipeline.experiments.base import available, is_made, made_of, question
from spectralgru.pipeline.params import Params
from spectralgru.pipeline.provenance.record import WRITTEN, artifacts, report_made_from, results_sha256
from spectralgru.pipeline.provenance.shape import Provenance
from spectralgru.pipeline.results.names import ARTICLE, REPORT
from spectralgru.pipeline.sampling.dates import made_of as samples_made_of
from spectralgru.pipeline.side_files import read_as, read_bytes
from spectralgru.pipeline.summary import SUMMARY, are_whole, is_current
from spectralgru.records import is_finished, read_run, run_path, summed_up
from spectralgru.seal import BEGINNING, is_whole

Keys = Mapping[str, str]  # run directory relative to results/<scale> -> key of the requested run


class _Corpus(BaseModel):
    sha256: str
    recipe: int = RECIPE  # if missing, the corpus was prepared by other means
    own: dict[str, Any] | None = None
    raw: dict[str, Any] = {}


class _Tracked(BaseModel):
    runs: dict[str, str]


class _Article(BaseModel):
    made_from: str
    files: dict[str, str]


def date_by_contents(params: Params, data: Path, root: Path, logs: Path) -> str:
    """Date the files below `data`, `root` (`results/<scale>`) and `logs` by their contents.

    Returns a line about files that could not be dated; empty if there are none.
    """
    dates = Dates()
    dates.set([RECIPE_FILE], True)
    corpora: dict[str, str] = {
        corpus: _date_corpus(dates, data, corpus, params.own.get(corpus))
        for corpus in params.chosen_corpora()
    }
    _date_experiments(dates, params, corpora, data, root)
    keys: dict[str, Keys] = {corpus: run_keys(params, corpus, sha256) for corpus, sha256 in corpora.items()}
    newest = [_date_runs(dates, corpus, keys[corpus], data, root) for corpus in corpora]
    shown = artifacts(list(keys), params.words())
    _date_results(dates, root, keys, shown, max(newest, default=0))
    # To Snakemake, benchmarks are outputs: they must not be why something is made again.
    dates.set((logs / "benchmarks").rglob("*.tsv"), True, dates.latest)
    return dates.complaint()


def run_keys(params: Params, corpus: str, data_sha256: str) -> Keys:
    """Directory and key of every requested run on a corpus."""
    job = params.job(corpus, params.settings(corpus))
    return {
        run_path("", corpus, r.method, r.value, r.seed).as_posix(): job.key(r, data_sha256)
        for r in job.replicas
    }


def _date_corpus(dates: Dates, data: Path, corpus: str, own: Own | None) -> str:
    """Date a prepared corpus by whether it would be prepared the same way now; returns its SHA-256, empty if none.

    Raises InputError for an own corpus that is not prepared and cannot be.
    """
    path = data / "prepared" / f"{corpus}.json"
    record = read_as(_Corpus, path)
    today = record is not None and record.recipe == RECIPE and (own is None or own.is_of(record.model_dump()))
    if own is not None and not today:
        own.raw()
    dates.set([path, path.with_suffix(".npz")], today, date_of(RECIPE_FILE))
    return record.sha256 if record else ""


def _date_experiments(
    dates: Dates, params: Params, corpora: Mapping[str, str], data: Path, root: Path
) -> None:
    for name, parts in available(params).items():
        out, keys, newest = root / "experiments" / name, {}, 0
        if not out.exists():  # the keys of its parts take longer than those of all runs
            continue
        for part in parts:
            keys[part] = key = question(name).key(params, part, corpora[part.corpus])
            record = part.record(out)
            dates.set([record], is_made(record, key, out), date_of(data / "prepared" / f"{part.corpus}.npz"))
            newest = max(newest, date_of(record))
        dates.set([out / SUMMARY], is_current(out, made_of(keys)), newest)


def _date_runs(dates: Dates, corpus: str, keys: Keys, data: Path, root: Path) -> int:
    """Date the summaries of a corpus' settings; returns the newest date."""
    prepared, newest = data / "prepared" / f"{corpus}.npz", 0
    for folder in sorted({path.rpartition("/")[0] for path in keys}):
        summary = root / folder / "setting.json"
        dates.set([summary], _summed_up(summary, root, keys), date_of(prepared))
        newest = max(newest, date_of(summary))
    return newest


def _summed_up(summary: Path, root: Path, keys: Keys) -> bool:
    """Whether the requested runs are there, with every file as it was written, and the summary is of these runs."""
    asked = {root / path: key for path, key in keys.items() if (root / path).parent == summary.parent}
    with ThreadPoolExecutor() as pool:  # hashing large models takes time: docs/reliability.md
        whole = all(pool.map(is_finished, asked, asked.values()))
    return whole and read_bytes(summary) == json_text(summed_up([read_run(path) for path in asked])).encode()


def _date_results(
    dates: Dates,
    root: Path,
    expected: Mapping[str, Keys],
    corpora_of: Mapping[str, Sequence[str]],
    newest: int,
) -> None:
    """Date results; `corpora_of`: every table, figure and claim, with the corpora whose runs it shows."""
    record = read_as(Provenance, root / WRITTEN[0], sealed=True)
    good = {path: _is_intact(root, path, record, corpora_of[path], expected) for path in corpora_of}
    date = max([newest, *(date_of(root / path) for path in good)])
    for path, intact in good.items():
        dates.set([root / path], intact, date)
    written = all(good.values()) and record is not None and are_whole(root, record.files)
    dates.set([root / name for name in WRITTEN], written, date)
    samples = root / "samples"
    every = {path: key for keys in expected.values() for path, key in keys.items()}
    dates.set([samples / SUMMARY], is_current(samples, samples_made_of(every)), newest)
    in_page = [*(root / n for n in WRITTEN), samples / SUMMARY, *root.glob(f"experiments/*/{SUMMARY}")]
    latest = max([date, *map(date_of, in_page)])
    dates.set([root / REPORT], written and _is_current_page(root), latest)
    dates.set([root / name for name in ARTICLE], written and _is_current_article(root), latest)
    tracked_after = max(date, date_of(samples / SUMMARY))
    for corpus, keys in expected.items():
        imported = root / "tracking" / f"{corpus}.json"
        tracked = read_as(_Tracked, imported)
        drawn = all(good[path] for path in good if corpora_of[path] == [corpus])
        dates.set([imported], drawn and tracked is not None and tracked.runs == keys, tracked_after)


def _is_intact(
    root: Path,
    path: str,
    record: Provenance | None,
    corpora: Sequence[str],
    expected: Mapping[str, Keys],
) -> bool:
    """Whether a table or figure is the recorded one, and shows the requested runs as the present code would."""
    if record is None or path not in record.artifacts or record.results_sha256 != results_sha256():
        return False
    asked = {run: key for corpus in corpora for run, key in expected[corpus].items()}
    of_these = tuple(f"runs/{corpus}/" for corpus in corpora)
    recorded = record.artifacts[path]
    return (
        recorded.corpora == list(corpora)
        and {name: run.key for name, run in record.runs.items() if name.startswith(of_these)} == asked
        and are_whole(root, {path: recorded.sha256})
    )


def _is_current_page(root: Path) -> bool:
    """Whether the report is as it was written and shows all present results."""
    page = read_bytes(root / REPORT)
    try:
        return is_whole(page) and f'content="{report_made_from(root)}"'.encode() in page[:BEGINNING]
    except OSError:
        return False


def _is_current_article(root: Path) -> bool:
    """Whether the article is as it was written and covers all present results."""
    said = read_as(_Article, root / ARTICLE[1], sealed=True)
    try:
        return said is not None and said.made_from == report_made_from(root) and are_whole(root, said.files)
    except OSError:
        return False
