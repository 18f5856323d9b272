"""The corpus that a finished run was trained on, without the libraries that train."""

from pathlib import Path

from spectralgru.errors import InputError
from spectralgru.records import Run
from spectralgru.training.data.dataset import Corpus, load
from spectralgru.training.data.loading import subset
from spectralgru.training.settings import DataSettings


def load_corpus(run: Run, directory: Path, data: Path) -> Corpus:
    """The part of the corpus in `data/prepared` that the run in `directory` was trained on.

    Raises InputError if the corpus is missing, damaged or a different one.
    """
    corpus = load(data / "prepared" / f"{run.corpus}.npz")
    if corpus.sha256 != run.data_sha256:
        raise InputError(
            f"{directory}: trained on data {run.data_sha256[:12]}, but {data} holds {corpus.sha256[:12]}; "
            "prepare the corpus again or name the right --data"
        )
    return subset(corpus, DataSettings(**run.settings["data"]))
