"""Where results come from: table, figure or claims -> run directories -> commit, parameters, data, machine, versions.

`results/<scale>/provenance.json` holds the SHA-256 of every artifact and run, and what `pipeline.dates` needs to
distinguish results of the present parameters and code from older ones. Nothing in it depends on the time of writing.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.files import sha256, sha256_of_all, write_json, write_text
from spectralgru.pipeline.corpora import CORPORA
from spectralgru.pipeline.provenance.shape import Provenance
from spectralgru.pipeline.results.names import (
    CLAIMS,
    FIGURE_NAMES,
    KEPT,
    NUMBERS,
    REPORT,
    WORDS,
    table_names,
    words_of,
)
from spectralgru.pipeline.results.paper import NAME
from spectralgru.pipeline.results.render import FORMS
from spectralgru.pipeline.side_files import read_as
from spectralgru.pipeline.summary import SUMMARY
from spectralgru.records import check_files, files_here, read_run, run_path
from spectralgru.resources import PACKAGE, resource
from spectralgru.seal import sealed_json
from spectralgru.setting import Setting

Settings = Mapping[str, Sequence[Setting]]  # of each corpus

WRITTEN = ("provenance.json", "provenance.html", "ro-crate-metadata.json", "Snakefile", "params.yaml")
CHECKOUT = PACKAGE.parents[1]
CODE = ("article/*", "pages/*", "provenance/*.py", "report/*.py", "results/**/*.py")
RECORDED = (
    "status",
    "best",
    "final",
    "metric",
    "key",
    "git_commit",
    "data_sha256",
    "host",
    "device",
    "threads",
    "replicas",
    "started",
    "wall_seconds",
    "versions",
    "settings",
)


def artifacts(corpora: Sequence[str], words: Collection[str] = WORDS) -> dict[str, list[str]]:
    """Every table, figure and claim, relative to `results/<scale>`, with the corpora whose runs it shows.

    `words`: the corpora that have words.
    """
    corpora_of = {
        f"tables/{name}.{suffix}": [corpus]
        for corpus, name in table_names(corpora, words).items()
        for suffix in FORMS
    }
    corpora_of |= {f"tables/{name}": list(corpora) for name in NUMBERS}
    corpora_of |= {name: list(corpora) for name in CLAIMS}
    for corpus in corpora:
        for name in FIGURE_NAMES:
            corpora_of |= {f"figures/{corpus}-{name}.{suffix}": [corpus] for suffix in ("svg", "pdf")}
    return corpora_of


@cache
def results_sha256() -> str:
    """Hash of what turns runs into tables, figures, claims and the report: code, templates and the paper's numbers."""
    code, paper = sha256_of_all(PACKAGE / "pipeline", CODE), resource(NAME)
    numbers = sha256(paper) if paper.exists() else ""
    return hashlib.sha256(f"{code} {numbers}".encode()).hexdigest()


def collect(root: Path, settings: Settings, seeds: Sequence[int], data: Path) -> dict[str, Any]:
    """The provenance of all tables, figures and claims below `root` (`results/<scale>`).

    Raises InputError naming a run, prepared corpus or artifact that is missing, and how to make it.
    """
    about = {corpus: _data(corpus, data) for corpus in settings}
    corpora_of = artifacts(list(settings), words_of(about))
    for path in corpora_of:
        if not (root / path).exists():
            raise InputError(f"{root / path}: missing; make it with `snakemake`")
    return {
        "scale": root.name,
        "results_sha256": results_sha256(),
        "artifacts": {path: {"sha256": sha256(root / path), "corpora": c} for path, c in corpora_of.items()},
        "data": about,
        "runs": {
            run_path("", corpus, method, value, seed).as_posix(): _run(
                run_path(root, corpus, method, value, seed)
            )
            for corpus, chosen in settings.items()
            for method, value in chosen
            for seed in seeds
        },
    }


def other_selection(root: Path, corpora: Sequence[str]) -> str:
    """A line that says which corpora the results below `root` show, if they are not these; otherwise empty."""
    record = read_as(Provenance, root / WRITTEN[0], sealed=True)
    if record is None or set(record.data) == set(corpora):
        return ""
    return (
        f"{root / REPORT} and what it is made of show {', '.join(record.data)} and will show {', '.join(corpora)}; "
        "runs stay. To keep both, add `--config results=FOLDER`"
    )


def report_made_from(root: Path) -> str:
    """Hash of everything behind report and article: provenance, experiments, samples and kept campaigns."""
    here = sha256_of_all(root, (WRITTEN[0], f"experiments/*/{SUMMARY}", f"samples/{SUMMARY}"))
    shown = ("*/answer.json", "*/claims.json", "*/provenance.json", "*/*.svg", f"**/{SUMMARY}")
    kept = sha256_of_all(root.parent.parent / KEPT, shown)
    return hashlib.sha256(f"{here} {kept}".encode()).hexdigest()


def write_provenance(
    root: Path, settings: Settings, seeds: Sequence[int], data: Path, params: Path
) -> list[Path]:
    """Write the files `WRITTEN` below `root`; return their paths.

    `params`: the file params.yaml. It and the Snakefile are copied, which makes the folder a complete research object.
    """
    from spectralgru.pipeline.provenance.crate import crate
    from spectralgru.pipeline.provenance.page import to_html

    record = collect(root, settings, seeds, data)
    places = (Path("Snakefile"), Path("workflow/Snakefile"), CHECKOUT / "Snakefile")
    snakefiles = [path for path in places if path.exists()]
    if not snakefiles:
        raise InputError("Snakefile: neither here nor beside the package; run in the project's folder")
    for name, path in (("Snakefile", snakefiles[0]), ("params.yaml", params)):
        write_text(root / name, path.read_text(encoding="utf-8"))
    write_text(root / "provenance.html", to_html(record))
    write_json(root / "ro-crate-metadata.json", crate(record))
    files = {name: sha256(root / name) for name in WRITTEN[1:]}
    write_text(root / WRITTEN[0], sealed_json(record | {"files": files}))
    return [root / name for name in WRITTEN]


def _data(corpus: str, data: Path) -> dict[str, Any]:
    path = data / "prepared" / f"{corpus}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        about = {name: record[name] for name in ("sha256", "recipe", "raw", "licence", "counts")}
        return about | {"kind": record.get("kind", CORPORA.get(corpus))}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}); make it with `spectralgru prepare --corpus {corpus}`"
        ) from None


def _run(directory: Path) -> dict[str, Any]:
    run = read_run(directory)
    check_files(directory, run, files_here(directory))
    files = run.files | {"run.json": sha256(directory / "run.json")}
    return {name: getattr(run, name) for name in RECORDED} | {"files": files}
