"""Opens a trained run to sample from."""

from dataclasses import dataclass
from pathlib import Path

import torch

from spectralgru.errors import InputError
from spectralgru.pipeline.saved import load_trained
from spectralgru.records import Run
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.models import ReplicatedModel


@dataclass(frozen=True)
class Trained:
    """The model of a run (weights of the best validation epoch), and the part of the corpus it was trained on."""

    run: Run
    model: ReplicatedModel
    corpus: Corpus


def open_run(directory: Path, data: Path) -> Trained:
    """Read a run directory, and its corpus from `data/prepared`.

    Raises InputError if one of them is missing or damaged, if they do not belong together, or if the weights are not
    finite.
    """
    run, model, corpus = load_trained(directory, data)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise InputError(
                f"{directory}: {name} is not finite, the run's status is {run.status}; choose a run that finished"
            )
    return Trained(run, model, corpus)
