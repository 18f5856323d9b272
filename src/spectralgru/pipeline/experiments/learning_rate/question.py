"""A sweep of the initial learning rate: does a lower one repair clipping, and how wide is each method's range?

A part is one rate on one corpus. All its methods and seeds train together, in `rate-<rate>/runs/...` of the
experiment's folder, with the usual records. If a rate or a method is added, only that one is trained.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from spectralgru.pipeline.experiments.base import Answer, Means, Part, key_of, of_chosen_corpora, train_part
from spectralgru.pipeline.params import Params, in_order, make_job
from spectralgru.pipeline.params.experiments import RateSweep
from spectralgru.setting import number
from spectralgru.training.settings import Job


def parts(params: Params) -> list[Part]:
    """One part for each corpus and rate."""
    return [Part(corpus, _name(r)) for corpus, sweep in _sweeps(params).items() for r in sweep.rates]


def key(params: Params, part: Part, data_sha256: str) -> str:
    """Hash of the keys of the part's runs."""
    return key_of(_job(params, part), data_sha256)


def make(params: Params, part: Part, means: Means) -> dict[str, Any]:
    """Train what is not trained yet."""
    return train_part(_job(params, part), params.parallel, part.name, means)


def conclude(params: Params, out: Path) -> Answer:
    """Heat maps, a table of the best rate of each method, and three sentences."""
    from spectralgru.pipeline.experiments.learning_rate.results import Sweep, sum_up
    from spectralgru.pipeline.results.load import load_runs

    assert params.section.experiments.learning_rate is not None
    seeds, sweeps = params.section.experiments.learning_rate.seeds, []
    for corpus, sweep in _sweeps(params).items():
        settings = in_order(sweep.methods)
        runs = {
            rate: [
                item.run
                for items in load_runs(out / _name(rate), corpus, settings, seeds, params.scale).values()
                for item in items
            ]
            for rate in sweep.rates
        }
        sweeps.append(Sweep(corpus, settings, runs, sweep.tolerance))
    return sum_up(sweeps, out)


def _name(rate: float) -> str:
    return f"rate-{number(rate)}"


def _sweeps(params: Params) -> dict[str, RateSweep]:
    settings = params.section.experiments.learning_rate
    return of_chosen_corpora(params, settings.corpora if settings else {})


def _job(params: Params, part: Part) -> Job:
    settings, shared = params.section.experiments.learning_rate, params.of_corpus(part.corpus)
    assert settings is not None
    sweep = _sweeps(params)[part.corpus]
    rate = next(rate for rate in sweep.rates if _name(rate) == part.name)
    training = replace(shared.training, epochs=sweep.epochs, learning_rate=rate)
    shared = shared.model_copy(update={"training": training})
    return make_job(part.corpus, params.scale, shared, in_order(sweep.methods), settings.seeds)
