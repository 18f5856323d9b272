"""Run directories with plausible numbers, written through `records.write_run`, for testing what reads them."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spectralgru.files import sha256, write_json
from spectralgru.pipeline.corpora.recipe import RECIPE
from spectralgru.pipeline.provenance.record import write_provenance
from spectralgru.pipeline.report import write_report
from spectralgru.pipeline.results.claims.check import write_claims
from spectralgru.pipeline.results.curves import write_curves
from spectralgru.pipeline.results.figures import write_figures
from spectralgru.pipeline.results.load import Campaign
from spectralgru.pipeline.results.runs import write_runs
from spectralgru.pipeline.results.tables import write_tables
from spectralgru.records import RUN_FILES, SEAL, Run, run_path, write_record, write_run
from spectralgru.setting import Setting

REPOSITORY = Path(__file__).parents[1]

SETTINGS = {
    corpus: [Setting.parse(name) for name in names.split()]
    for corpus, names in {
        "ptb": "constraint-0.2 constraint-0.5 clipping-5 clipping-20 none",
        "chorales": "constraint-0.2 constraint-1.4 clipping-15 clipping-60 none",
    }.items()
}
START = "2026-01-02T03:04:05+00:00"


def settings_of(corpus: str, epochs: int = 6, hidden: int = 12) -> dict:
    words = corpus == "ptb"
    return {
        "data": {
            "train": 200_000 if words else None,
            "valid": None,
            "test": None,
            "vocabulary": 5000 if words else None,
        },
        "model": {
            "hidden_size": hidden,
            "num_layers": 1 if words else 2,
            "input_scale": 0.01,
            "dropout": 0.5,
            "init_scale": 1.0,
        },
        "training": {
            "epochs": epochs,
            "learning_rate": 1.0 if words else 0.1,
            "schedule": {
                "kind": "decay" if words else "plateau",
                "patience": 4,
                "factor": 1.25,
                "minimum": 0.0,
            },
            "batch_size": 20,
            "bptt_steps": 35,
            "trace_every": 10,
        },
        "learning_rate": 1.0 if words else 0.1,
    }


def make_run(
    root: Path,
    corpus: str,
    method: str,
    value: float | None,
    seed: int,
    *,
    scale: str = "quick",
    epochs: int = 6,
    diverged_in: int | None = None,
    best: tuple[float, float] | None = None,
    trace: int = 40,
    hidden: int = 12,
    weights: int = 12,
) -> Path:
    """A run of `epochs` epochs, or one that overflows in epoch `diverged_in`; `trace` trace rows an epoch."""
    code = sum(map(ord, f"{corpus}{method}{value}"))
    rng = np.random.default_rng([seed, code])
    words = corpus == "ptb"
    done = epochs if diverged_in is None else diverged_in - 1
    bound = 2 - value if method == "constraint" else np.inf
    start, end = (6.5, 4.7) if words else (12.0, 8.0)
    loss = end + (start - end) * np.exp(-np.arange(1, epochs + 1) / 2) + 0.02 * rng.standard_normal(epochs)
    history = [
        {
            "epoch": e + 1,
            "learning_rate": 1.0,
            "train_loss": loss[e] + 0.1,
            "valid_loss": loss[e],
            "valid_metric": np.exp(loss[e]) if words else loss[e],
            "grad_norm_mean": 3.0,
            "grad_norm_max": 9.0,
            "sigma_max": min(bound, 1 + 0.3 * (e + 1)),
            "saturated": 3.0,
            "spectral_radius": min(bound / 4 + 0.5, 0.75 + 0.06 * (e + 1)),
            "projections_done": 5.0,
            "projections_skipped": 15.0,
            "seconds": 2.5,
        }
        for e in range(done)
    ]
    rows = trace * done + (trace // 2 if diverged_in is not None else 0)
    radius = np.minimum(bound / 4 + 0.5, 0.75 + 0.35 * np.arange(rows) / max(1, trace * epochs))
    norms = 2 * np.exp(0.3 * rng.standard_normal(rows)) * np.where(radius > 1, 1 + 200 * (radius - 1), 1)
    if diverged_in is not None and rows:
        norms[-1], norms[-2] = np.nan, np.inf
    steps = [
        {
            "step": 10 * (i + 1),
            "epoch": i // trace + 1,
            "grad_norm": norms[i],
            "sigma_max": min(bound, 1 + i / 100),
            "spectral_radius": radius[i],
            "growth": 0.1 * np.log(norms[i] / 2) if np.isfinite(norms[i]) else np.nan,
        }
        for i in range(rows)
    ]
    metric = "perplexity" if words else "nll"
    figures = {}
    if done:
        valid, test = best or (history[-1]["valid_metric"], history[-1]["valid_metric"] * 0.97)
        figures = {"epoch": done, "valid_loss": history[-1]["valid_loss"], "valid": valid}
        if diverged_in is None:
            figures |= {"test_loss": float(np.log(test)) if words else test, "test": test}
    spectrum = (
        np.linspace(min(1.0, bound), min(1.0, bound), hidden),
        np.linspace(min(bound, 2.6), 0.1, hidden),
    )
    layers = 1 if words else 2
    run = Run(
        corpus=corpus,
        method=method,
        value=value,
        seed=seed,
        scale=scale,
        status="finished" if diverged_in is None else "diverged",
        metric=metric,
        best=figures,
        final=figures,
        diverged=None
        if diverged_in is None
        else {"epoch": diverged_in, "step": max(1, 10 * rows), "reason": "gradient not finite"},
        spectrum={
            "initial": [spectrum[0].tolist()] * layers,
            "final": [spectrum[1].tolist()] * layers,
        },
        settings=settings_of(corpus, epochs, hidden),
        key=f"{code:064d}",
        data_sha256="ab" * 32,
        git_commit="0123456789abcdef",
        versions={"torch": "2.13.0", "numpy": "2.4.6"},
        host="machine",
        device="cpu",
        started=START,
        wall_seconds=2.5 * max(1, done),
        replicas=3,
    )
    directory = run_path(root, corpus, method, value, seed)
    model = {"weight_hh_l0": rng.standard_normal((weights, weights)).astype("float32")}
    write_run(directory, run, history, steps, model)
    return directory


def reseal(directory: Path, **changes) -> None:
    """Let the record of a run say `changes`, and tell of its files as they are now, as if it had come to them."""
    record = json.loads((directory / "run.json").read_text())
    run = Run(**{name: value for name, value in record.items() if name != SEAL})
    files = {name: sha256(directory / name) for name in RUN_FILES if (directory / name).exists()}
    write_record(directory, replace(run, files=files, **changes))


def make_campaign(
    root: Path, corpora: dict = SETTINGS, seeds: tuple[int, ...] = (0, 1, 2), **options
) -> list[Path]:
    """All runs of `corpora`; the loosest clipping and the unconstrained runs diverge, some in their first epoch."""
    directories = []
    for corpus, settings in corpora.items():
        for method, value in settings:
            for seed in seeds:
                loose = method == "none" or value in (20.0, 60.0)
                diverged = {0: 4, 1: 1}.get(seed, 3) if method == "none" else (3 if loose and seed else None)
                directories.append(
                    make_run(root, corpus, method, value, seed, diverged_in=diverged, **options)
                )
    return directories


def make_results(
    folder: Path, corpora: dict = SETTINGS, seeds: tuple[int, ...] = (0, 1, 2), **options
) -> Path:
    """Runs and all that is made of them, the report included, below `folder`; returns `folder/results/quick`."""
    root, data = folder / "results" / "quick", folder / "data"
    make_campaign(root, corpora, seeds, **options)
    for corpus in corpora:
        raw = {"raw.txt": {"sha256": "cd" * 32, "source": "mirror"}}
        record = {"sha256": "ab" * 32, "recipe": RECIPE, "raw": raw, "licence": "free", "counts": {}}
        write_json(data / "prepared" / f"{corpus}.json", record)
    write_results(root, corpora, seeds, data)
    write_report(root)
    return root


def write_results(root: Path, corpora: dict, seeds: Sequence[int], data: Path) -> None:
    """All that is made of the runs below `root`, but for the report."""
    campaign = Campaign.load(root, corpora, seeds, "quick")
    for write in (write_tables, write_runs, write_curves, write_figures, write_claims):
        write(campaign)
    write_provenance(root, corpora, seeds, data, REPOSITORY / "params.yaml")


def make_experiment(folder: Path, title: str = "Does a lower rate repair clipping?", **more) -> None:
    """A finished experiment in `folder`, with a table and a figure from the campaign that lies two folders above."""
    root = folder.parents[1] if folder.parent.name == "experiments" else folder.parent
    folder.mkdir(parents=True)
    for source, name in (("tables/table1.html", "rates.html"), ("tables/table1.csv", "rates.csv")):
        shutil.copy(root / source, folder / name)
    for suffix in ("svg", "pdf"):
        shutil.copy(root / f"figures/ptb-trajectory.{suffix}", folder / f"heat_map.{suffix}")
    answer = ["Clipping works at 3 of 7 rates.", "The constraint works at 5 of 7 <rates> & more."]
    page = (root / "tables/table1.html").read_text()
    body = page[page.index("<table") : page.index("</table>") + len("</table>")]
    table = {"name": "rates", "caption": "Rates <tried>", "html": body}
    summary = {"title": title, "answer": answer, "tables": [table], "figures": ["heat_map.svg"]}
    write_json(folder / "summary.json", summary | more)
