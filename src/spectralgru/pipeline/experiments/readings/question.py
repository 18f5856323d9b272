"""The same runs with another reading of the paper's network (`readings` in a corpus' settings), reported beside them.

A part is one setting of one reading on one corpus. Its seeds train together, in `<reading>/runs/...` of the
experiment's folder, with the usual records.
"""

from pathlib import Path
from typing import Any

from spectralgru.pipeline.experiments.base import Answer, Means, Part, key_of, train_part
from spectralgru.pipeline.params import Params, make_job
from spectralgru.setting import Setting
from spectralgru.training.settings import Job


def parts(params: Params) -> list[Part]:
    """One part for each corpus, reading and setting."""
    return [
        Part(corpus, f"{reading}.{setting.name}")
        for corpus, reading in _readings(params)
        for setting in params.settings(corpus)
    ]


def key(params: Params, part: Part, data_sha256: str) -> str:
    """Hash of the keys of the part's runs."""
    return key_of(_job(params, part), data_sha256)


def make(params: Params, part: Part, means: Means) -> dict[str, Any]:
    """Train what is not trained yet."""
    return train_part(_job(params, part), params.parallel, part.name.partition(".")[0], means)


def conclude(params: Params, out: Path) -> Answer:
    """A table, figures and claims for each corpus and reading."""
    from spectralgru.pipeline.experiments.readings.results import sum_up
    from spectralgru.pipeline.results.load import load_runs

    return sum_up(
        {
            (corpus, reading): load_runs(
                out / reading, corpus, params.settings(corpus), params.section.seeds, params.scale
            )
            for corpus, reading in _readings(params)
        },
        out,
    )


def _readings(params: Params) -> list[tuple[str, str]]:
    return [(c, reading) for c in params.chosen_corpora() for reading in params.of_corpus(c).readings]


def _job(params: Params, part: Part) -> Job:
    reading, _, name = part.name.partition(".")
    settings = params.of_corpus(part.corpus)
    settings = settings.model_copy(update={"model": settings.readings[reading]})
    return make_job(part.corpus, params.scale, settings, [Setting.parse(name)], params.section.seeds)
