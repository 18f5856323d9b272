"""A trained run, ready to be sampled from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from spectralgru.corpora.dataset import Corpus, load
from spectralgru.errors import InputError
from spectralgru.models import ReplicatedModel
from spectralgru.records import Run, read_run
from spectralgru.training.data import part
from spectralgru.training.saved import load_model
from spectralgru.training.settings import DataSettings


@dataclass(frozen=True)
class Trained:
    """The model of a run (weights of the best validation epoch), and the part of the corpus that it was trained on."""

    run: Run
    model: ReplicatedModel
    corpus: Corpus


def open_run(directory: Path, data: Path) -> Trained:
    """Read a run directory, and its corpus from `data/prepared`.

    Raises InputError if one of them is missing or damaged, if they do not belong together, or if the weights are not
    finite.
    """
    run = read_run(directory)
    try:
        model = load_model(directory)[1]
    except (OSError, SafetensorError, LookupError, RuntimeError, ValueError) as error:
        file = directory / "model.safetensors"
        raise InputError(
            f"{file}: no model of this run can be read from it ({error!r}); train the run again"
        ) from None
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise InputError(
                f"{directory}: {name} is not finite, the run's status is {run.status}; choose a run that finished"
            )
    corpus = load(data / "prepared" / f"{run.corpus}.npz")
    if corpus.sha256 != run.data_sha256:
        raise InputError(
            f"{directory}: trained on data {run.data_sha256[:12]}, but {data} holds {corpus.sha256[:12]}; "
            "prepare the corpus again or name the right --data"
        )
    return Trained(run, model, part(corpus, DataSettings(**run.settings["data"])))
