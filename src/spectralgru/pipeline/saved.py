"""Reads the models of finished runs."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora.of_run import load_corpus
from spectralgru.records import MODEL, Run, check_files, read_run
from spectralgru.training.batches import evaluation_stream
from spectralgru.training.data.dataset import Corpus, Split
from spectralgru.training.data.loading import width
from spectralgru.training.evaluate import evaluate, metric
from spectralgru.training.models import Kind, ReplicatedModel


def load_model(directory: Path) -> tuple[Run, ReplicatedModel]:
    """The record of a run directory, and its model (best validation epoch) with a single replica.

    Raises InputError if one of them is missing or damaged, or the model's size is not that in the record.
    """
    run, file = read_run(directory), directory / MODEL
    check_files(directory, run, [MODEL])
    try:
        weights = load_file(file)
        settings = run.settings["model"]
        kind: Kind = "words" if run.metric == "perplexity" else "notes"
        shape = (weights["output.bias"].shape[0], settings["hidden_size"], settings["num_layers"])
        model = ReplicatedModel(kind, *shape, settings["input_scale"], replicas=1)
        model.set_weights(0, weights)
    except (OSError, SafetensorError, LookupError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{file}: no model of this run can be read from it ({error!r}); train the run again"
        ) from None
    return run, model


def load_trained(directory: Path, data: Path) -> tuple[Run, ReplicatedModel, Corpus]:
    """`load_model`, and the corpus that the run was trained on.

    Raises InputError as `load_model` and `load_corpus` do, and if the model belongs to another corpus.
    """
    run, model = load_model(directory)
    corpus = load_corpus(run, directory, data)
    size = model.output["bias"].shape[-1]
    if size != width(corpus):
        raise InputError(
            f"{directory / MODEL}: a model of {size} {model.kind}, but {run.corpus} has {width(corpus)}; "
            "train the run again"
        )
    return run, model, corpus


def evaluate_run(directory: Path, data: Path, split: Split) -> dict[str, float]:
    """Loss and metric of a run's saved model on a split, recomputed from the prepared corpus.

    Raises InputError as `load_trained` does.
    """
    run, model, corpus = load_trained(directory, data)
    training = run.settings["training"]
    stream = evaluation_stream(corpus, split, training["batch_size"], training["bptt_steps"], model.device)
    loss = float(evaluate(model, stream)[0])
    return {"loss": loss, run.metric: metric(model.kind, loss)}
