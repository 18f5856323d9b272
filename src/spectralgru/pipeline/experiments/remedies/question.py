"""Baselines that the paper does not have, each in the plain loop: does anything else keep training from exploding?

A part is one baseline on one corpus. It is trained with the first seed at every rate of its optimiser, then with the
other seeds at the rate with the best validation result, in `<baseline>/rate-<rate>/runs/...` of the experiment's
folder, with the usual records. The part `cost` times training steps of all baselines, interleaved.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spectralgru.files import sha256
from spectralgru.pipeline.experiments.base import Answer, Means, Part, of_chosen_corpora
from spectralgru.pipeline.experiments.plain_loop.job import PlainJob
from spectralgru.pipeline.experiments.remedies.grid import COST, Baseline, baselines, root_of
from spectralgru.pipeline.params import Params
from spectralgru.pipeline.params.experiments import Beyond, BeyondOn
from spectralgru.pipeline.results.outcome import succeeded
from spectralgru.records import Run, run_path
from spectralgru.training.settings import Replica


def parts(params: Params) -> list[Part]:
    """One part for each corpus and baseline, and one for the timing of all."""
    return [
        Part(corpus, name)
        for corpus, on in chosen(params).items()
        for name in (*(baseline.name for baseline in baselines(on)), COST)
    ]


def key(params: Params, part: Part, data_sha256: str) -> str:
    """Hash of the keys of all runs that the part may train."""
    on, seeds = chosen(params)[part.corpus], _settings(params).seeds
    keys = [part.name]
    if part.name == COST:
        keys += [str(_settings(params).timed_steps), sha256(Path(__file__).with_name("cost.py"))]
    for baseline in baselines(on):
        if part.name in (COST, baseline.name):
            shared = job(params, part.corpus, baseline)
            keys += [shared.key(replica, data_sha256) for replica in _replicas(baseline, on, seeds)]
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def make(params: Params, part: Part, means: Means) -> dict[str, Any]:
    """Train what is not trained yet, or time the steps."""
    from spectralgru.pipeline.experiments.plain_loop.training import train
    from spectralgru.pipeline.experiments.remedies.cost import seconds_per_step
    from spectralgru.training.data.dataset import load
    from spectralgru.training.environment import set_threads

    set_threads(means.threads)
    corpus = load(means.data / "prepared" / f"{part.corpus}.npz")
    on, settings = chosen(params)[part.corpus], _settings(params)
    if part.name == COST:
        jobs = {b.name: (job(params, part.corpus, b), _middle(b, on)) for b in baselines(on)}
        return {"seconds": seconds_per_step(jobs, corpus, settings.timed_steps)}
    (baseline,) = (b for b in baselines(on) if b.name == part.name)
    shared, first = job(params, part.corpus, baseline), _replicas(baseline, on, settings.seeds[:1])
    runs = {
        r.learning_rate: train(shared, r, corpus, root_of(means.out, baseline, r.learning_rate))
        for r in first
    }
    rate = best_rate(runs)
    directories = [(r, root_of(Path(), baseline, r.learning_rate)) for r in first]
    for replica in _replicas(baseline, on, settings.seeds[1:]):
        if replica.learning_rate == rate:
            train(shared, replica, corpus, root_of(means.out, baseline, rate))
            directories.append((replica, root_of(Path(), baseline, rate)))
    files = [run_path(root, part.corpus, r.method, r.value, r.seed) / "run.json" for r, root in directories]
    return {"files": [file.as_posix() for file in files], "rate": rate}


def best_rate(runs: Mapping[float, Run]) -> float:
    """The rate with the best validation metric among the finished runs, or among all if none finished."""
    finished = {rate: run for rate, run in runs.items() if succeeded(run)} or runs
    return min(finished, key=lambda rate: finished[rate].best.get("valid", math.inf))


def conclude(params: Params, out: Path) -> Answer:
    """A table and sentences for each corpus."""
    from spectralgru.pipeline.experiments.remedies.results import Field, sum_up

    fields = [
        Field(corpus, tuple(baselines(on)), tuple(_settings(params).seeds), on)
        for corpus, on in chosen(params).items()
    ]
    return sum_up(fields, out)


def chosen(params: Params) -> dict[str, BeyondOn]:
    """The settings of the corpora that params.yaml chooses."""
    settings = params.section.experiments.beyond
    return of_chosen_corpora(params, settings.corpora if settings else {})


def _settings(params: Params) -> Beyond:
    settings = params.section.experiments.beyond
    assert settings is not None
    return settings


def job(params: Params, corpus: str, baseline: Baseline) -> PlainJob:
    """What the runs of a baseline share."""
    on = chosen(params)[corpus]
    return PlainJob(
        corpus=corpus,
        scale=params.scale,
        data=on.data,
        model=on.model if baseline.layers is None else replace(on.model, num_layers=baseline.layers),
        training=replace(params.of_corpus(corpus).training, epochs=on.epochs, schedule=on.schedule),
        replicas=(),
        cell=baseline.cell,
        optimizer=baseline.optimizer,
        clip=baseline.clip,
        gates=baseline.gates,
    )


def _replicas(baseline: Baseline, on: BeyondOn, seeds: list[int]) -> list[Replica]:
    rates = on.rates[baseline.optimizer]
    return [Replica(baseline.method, baseline.value, seed, rate) for seed in seeds for rate in rates]


def _middle(baseline: Baseline, on: BeyondOn) -> Replica:
    replicas = _replicas(baseline, on, [0])
    return replicas[len(replicas) // 2]
