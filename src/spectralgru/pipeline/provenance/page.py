"""A provenance record as lines and as a page."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spectralgru.pipeline.pages import render
from spectralgru.pipeline.results.load import flatten

Record = Mapping[str, Any]  # content of provenance.json


def common(record: Record, corpus: str, runs: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """What the runs on a corpus share: names and values, with the number of runs where values differ."""
    data = record["data"][corpus]
    yield "data", f"{corpus}, sha256 {data['sha256']}"
    for name, raw in data["raw"].items():
        yield "source", f"{name}, sha256 {raw['sha256']}, from {raw['source']}"

    def counted(values: Iterator[str]) -> str:
        counts = Counter(values)
        return "; ".join(v if len(counts) == 1 else f"{v} ({n} runs)" for v, n in counts.items())

    yield "commit", counted(run["git_commit"] or "unknown" for run in runs)
    yield "machine", counted(f"{run['host']}, {run['device']}, {run['threads']} threads" for run in runs)
    yield "versions", counted(" ".join(f"{n} {v}" for n, v in run["versions"].items()) for run in runs)
    shared = [flatten(run["settings"]) for run in runs]
    yield "params", counted(" ".join(f"{k}={v}" for k, v in one.items() if v is not None) for one in shared)


def to_html(record: Record) -> str:
    """A self-contained page: what the runs of each corpus share, each run, each artifact."""
    corpora = []
    for corpus in record["data"]:
        runs = {p: run for p, run in record["runs"].items() if p.startswith(f"runs/{corpus}/")}
        shared = common(record, corpus, list(runs.values()))
        corpora.append((corpus, list(shared), [_run_cells(path, run) for path, run in runs.items()]))
    artifacts = [(p, ", ".join(a["corpora"]), a["sha256"]) for p, a in record["artifacts"].items()]
    return render("provenance.html", scale=record["scale"], corpora=corpora, artifacts=artifacts)


def _run_cells(path: str, run: Record) -> tuple[str, ...]:
    best = (f"{run['best'][split]:.5g}" if split in run["best"] else "" for split in ("valid", "test"))
    how = (run["started"], f"{run['wall_seconds']:.0f}", run["git_commit"][:12], run["key"][:12])
    return (path, run["status"], *best, *how)
