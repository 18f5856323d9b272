"""The best model of every corpus in MLflow's model registry, as `spectralgru-<scale>-<corpus>`, alias `best`."""

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spectralgru.errors import InputError
from spectralgru.files import sha256, write_json
from spectralgru.pipeline.corpora.of_run import load_corpus
from spectralgru.pipeline.results.load import RunFiles
from spectralgru.pipeline.results.outcome import succeeded
from spectralgru.pipeline.tracking import convert
from spectralgru.pipeline.tracking.experiment import PROJECT, MlflowExperiment
from spectralgru.pipeline.tracking.store import local_folder
from spectralgru.records import Run
from spectralgru.training.data.dataset import Corpus

ALIAS = "best"
IDENTITY = "spectralgru.identity"  # tag of a version: the run and its model
EXAMPLE_STEPS = 12
PACKAGES = ("torch", "numpy", "pandas", "safetensors", "spectralgru")


def model_name(run: Run) -> str:
    """Name of a corpus' registered model."""
    return f"spectralgru-{run.scale}-{run.corpus}"


def register_best(
    client: Any, experiment: MlflowExperiment, items: Sequence[RunFiles], ids: Mapping[Path, str], data: Path
) -> None:
    """Point the alias `best` at the finished run with the lowest validation metric, registering a version if it has
    none.

    In a shared store the alias stays with a better model of another project. Without the corpus that the run was
    trained on, the meaning of the model's outputs is unknown; then nothing is registered, and `experiment.done` says
    why.
    """
    done, project = experiment.done, experiment.project
    good = [item for item in items if succeeded(item.run) and "valid" in item.run.best]
    if not good:
        return
    best = min(good, key=lambda item: (item.run.best["valid"], item.run.setting, item.run.seed))
    name, run_id = model_name(best.run), ids[best.directory]
    weights = best.directory / "model.safetensors"
    if not weights.exists():
        done.not_registered.append(f"{name}: {weights} is missing; train the run again")
        return
    identity = hashlib.sha256(f"{run_id} {sha256(weights)}".encode()).hexdigest()
    version = _version(client, name, identity)
    if version is None:
        try:
            corpus = load_corpus(best.run, best.directory, data)
        except InputError as error:
            done.not_registered.append(f"{name}: {error}")
            return
        tags = {IDENTITY: identity, PROJECT: project.id}
        version = _register(client, experiment.id, name, run_id, tags, best, corpus)
        done.models.append(f"{name} {version.version}")
    if ALIAS not in version.aliases and not _held_by_better(client, name, project.id, best.run):
        client.set_registered_model_alias(name, ALIAS, str(version.version))


def _version(client: Any, name: str, identity: str) -> Any:
    versions = client.search_model_versions(f"name = '{name}'")
    for version in versions:
        if version.tags.get(IDENTITY) == identity:
            folder = local_folder(version.source)
            return version if folder is None or folder.exists() else None
    return None


def _held_by_better(client: Any, name: str, project: str, run: Run) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        holder = client.get_model_version_by_alias(name, ALIAS)
    except MlflowException:  # no version has the alias
        return False
    if holder.tags.get(PROJECT) in (None, project):
        return False
    return float(holder.tags["best_valid"]) <= run.best["valid"]


def _register(
    client: Any,
    experiment: str,
    name: str,
    run_id: str,
    marks: Mapping[str, str],
    item: RunFiles,
    corpus: Corpus,
) -> Any:
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    run = item.run
    tags = convert.setting_tags(run.corpus, run.scale, run.setting)
    tags |= {"seed": str(run.seed), "metric": run.metric, "run_key": run.key}
    tags |= {f"best_{name}": f"{run.best[name]:.9g}" for name in convert.FIGURES if name in run.best}
    logged = client.create_logged_model(
        experiment, name, run_id, tags, params=convert.run_params(run), model_type="pyfunc"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save(folder, Path(scratch) / "data", item, corpus, logged.model_id, run_id)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    try:
        client.create_registered_model(
            name, description=f"Best model of {run.corpus} ({run.scale}) by validation"
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    described = f"{run.setting}, seed {run.seed}: validation {run.metric} {run.best['valid']:.5g}"
    return client.create_model_version(
        name,
        logged.artifact_location,
        run_id,
        {**tags, **marks},
        description=described,
        model_id=logged.model_id,
    )


def _save(folder: Path, data: Path, item: RunFiles, corpus: Corpus, model_id: str, run_id: str) -> None:
    """Write the model as MLflow's pyfunc, with a signature and an input example."""
    import mlflow
    from mlflow.models import Model, infer_signature

    from spectralgru.pipeline.tracking import predictor  # torch

    data.mkdir()
    for name in ("run.json", "model.safetensors"):
        shutil.copy2(item.directory / name, data / name)
    write_json(data / predictor.NAMES, predictor.names(corpus))
    column = "text" if corpus.kind == "words" else "tune"
    example = pd.DataFrame({column: [predictor.text_of(corpus, corpus.valid[:EXAMPLE_STEPS])]})
    predicted = predictor._load_pyfunc(str(data)).predict(example)
    with warnings.catch_warnings():
        # Counts are never missing.
        warnings.filterwarnings("ignore", ".*schema contains integer column", UserWarning)
        signature = infer_signature(example, predicted)
    mlflow.pyfunc.save_model(
        folder,
        loader_module="spectralgru.pipeline.tracking.predictor",
        data_path=data,
        mlflow_model=Model(run_id=run_id, model_id=model_id),
        signature=signature,
        input_example=example,
        pip_requirements=list(PACKAGES),
    )
