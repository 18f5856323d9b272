"""Really trained models in the model registry: found, loaded back and made to predict."""

import json
import math
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from tracked import copy_store, runs_of

import tiny
from results_records import make_run
from spectralgru.errors import InputError
from spectralgru.pipeline.tracking import open_store, track
from spectralgru.pipeline.tracking.predictor import text_of
from spectralgru.records import read_run
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import subset
from spectralgru.training.settings import DataSettings
from spectralgru.training.train import train

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, list[Path]]:
    """Data folder, results and run directories of two corpora."""
    folder = tmp_path_factory.mktemp("trained")
    tiny.write_corpora(folder / "data")
    root = folder / "results" / "quick"
    for corpus, rate in (("ptb", 0.3), ("chorales", 0.05)):
        replicas = tuple(tiny.replica("constraint", v, s, rate) for v in (0.2, 1.4) for s in SEEDS)
        job = tiny.job(corpus, replicas, epochs=4)
        train(job, folder / "data" / "prepared" / f"{corpus}.npz", root, folder / "checkpoints")
    return folder / "data", root, sorted(root.glob("runs/*/*/seed-*"))


@pytest.fixture(scope="module")
def store(empty_store, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("registry")
    return copy_store(empty_store, folder / "mlflow.db")


@pytest.fixture(scope="module")
def registered(trained, store):
    data, root, runs = trained
    done = track(root, runs, store, data=data)
    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri(store)
    yield done
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def best_of(runs: list[Path], corpus: str) -> Path:
    mine = [d for d in runs if d.parts[-3] == corpus and read_run(d).status == "finished"]
    return min(mine, key=lambda d: read_run(d).best["valid"])


def lanes(corpus, lanes: int) -> list[str]:
    """The texts that training's validation reads: the split cut into lanes, each from a zero state."""
    tokens = corpus.valid
    per_lane = -(-(len(tokens) - 1) // lanes)
    return [text_of(corpus, tokens[i : i + per_lane + 1]) for i in range(0, len(tokens) - 1, per_lane)]


def test_the_best_word_model_loaded_back_has_the_recorded_perplexity(trained, registered, store):
    data, _, runs = trained
    assert sorted(registered.models) == ["spectralgru-quick-chorales 1", "spectralgru-quick-ptb 1"]
    assert registered.not_registered == []
    run = read_run(best_of(runs, "ptb"))
    model = mlflow.pyfunc.load_model("models:/spectralgru-quick-ptb@best")
    texts = lanes(load(data / "prepared" / "ptb.npz"), run.settings["training"]["batch_size"])
    predicted = model.predict(pd.DataFrame({"text": texts}))
    perplexity = math.exp(predicted["nats"].sum() / predicted["predicted"].sum())
    assert predicted["predicted"].sum() == 299
    assert perplexity == pytest.approx(run.best["valid"], rel=1e-5)
    assert set(predicted["next_word"]) <= set(load(data / "prepared" / "ptb.npz").vocabulary)
    assert predicted["probability"].between(0, 1).all()


def test_the_best_note_model_loaded_back_has_the_recorded_likelihood(trained, registered, store):
    data, _, runs = trained
    run = read_run(best_of(runs, "chorales"))
    corpus = load(data / "prepared" / "chorales.npz")
    model = mlflow.pyfunc.load_model("models:/spectralgru-quick-chorales@best")
    predicted = model.predict(
        pd.DataFrame({"tune": [text_of(corpus, tune) for tune in corpus.tunes("valid")]})
    )
    assert predicted["steps"].tolist() == corpus.valid_lengths.tolist()
    assert predicted["nats"].sum() / predicted["steps"].sum() == pytest.approx(run.best["valid"], rel=1e-5)
    notes = {int(n) for text in predicted["next_notes"] for n in text.split()}
    assert notes <= set(range(31, 40))


def test_the_version_tells_what_it_is_and_how_to_use_it(trained, registered, store):
    _, _, runs = trained
    run = read_run(best_of(runs, "ptb"))
    client = open_store(store)
    version = client.get_model_version_by_alias("spectralgru-quick-ptb", "best")
    name = f"{run.setting} seed {run.seed}"
    assert version.run_id == runs_of(store, "spectralgru/quick/ptb")[name].info.run_id
    assert version.tags["run_key"] == run.key
    assert float(version.tags["best_valid"]) == pytest.approx(run.best["valid"])
    model = mlflow.pyfunc.load_model("models:/spectralgru-quick-ptb@best")
    assert model.metadata.signature.inputs.input_names() == ["text"]
    assert model.metadata.signature.outputs.input_names() == ["next_word", "probability", "nats", "predicted"]
    example = model.input_example
    assert model.predict(example).equals(model.predict(example.copy()))
    with pytest.raises(mlflow.exceptions.MlflowException, match="text"):
        model.predict(pd.DataFrame({"words": ["w1"]}))
    with pytest.raises(InputError, match="empty"):
        model.predict(pd.DataFrame({"text": [""]}))


def test_a_model_is_loaded_from_where_its_store_was_moved(registered, store, tmp_path):
    folder, moved = Path(store.removeprefix("sqlite:///")).parent, tmp_path / "moved"
    shutil.copytree(folder, moved)
    client = open_store(f"sqlite:///{moved}/mlflow.db")
    version = client.get_model_version_by_alias("spectralgru-quick-ptb", "best")
    place = client.get_model_version_download_uri(version.name, version.version)
    for uri in (place, client.get_run(version.run_id).info.artifact_uri):
        assert uri.startswith(f"{moved.as_uri()}/")
    model = mlflow.pyfunc.load_model(place)
    assert model.predict(model.input_example)["predicted"].gt(0).all()


def test_notes_out_of_range_are_named(trained, registered, store):
    model = mlflow.pyfunc.load_model("models:/spectralgru-quick-chorales@best")
    with pytest.raises(InputError, match=r"'99' in step 2.*31 to 39"):
        model.predict(pd.DataFrame({"tune": ["31 33 | 99"]}))
    silence = model.predict(pd.DataFrame({"tune": ["31 | | 33"]}))
    assert silence["steps"].tolist() == [3]


def test_next_word_is_the_most_probable_of_all(trained, registered, store):
    """Against the likelihood the model itself gives to every continuation."""
    model = mlflow.pyfunc.load_model("models:/spectralgru-quick-ptb@best")
    words = subset(load(trained[0] / "prepared" / "ptb.npz"), DataSettings()).vocabulary  # what training saw
    begin = "w3 w7 <eos> w1"
    guess = model.predict(pd.DataFrame({"text": [begin]})).iloc[0]
    rows = model.predict(pd.DataFrame({"text": [f"{begin} {word}" for word in words]}))
    added = np.exp(guess["nats"] - rows["nats"])
    assert added.sum() == pytest.approx(1, rel=1e-6)
    assert words[int(added.argmax())] == guess["next_word"]
    assert added.max() == pytest.approx(guess["probability"], rel=1e-6)


def test_without_its_corpus_no_model_is_registered_and_a_reason_given(campaign, uri, tmp_path):
    done = track(*campaign, uri, data=tmp_path / "nowhere")
    assert done.models == []
    assert len(done.not_registered) == 2
    assert "spectralgru-quick-ptb" in done.not_registered[0]
    assert "prepare --corpus ptb" in done.not_registered[0]
    assert open_store(uri).search_registered_models() == []


def test_every_run_names_its_data(trained, registered, store):
    data = trained[0]
    whole = load(data / "prepared" / "ptb.npz").sha256
    for name, run in runs_of(store, "spectralgru/quick/ptb").items():
        if "seed" in name:
            (used,) = run.inputs.dataset_inputs
            assert (used.dataset.name, used.dataset.digest) == ("ptb", whole[:36])
            assert json.loads(used.dataset.source)["sha256"] == whole
            assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}


def test_what_snakemake_measured_is_shown_as_system_metrics(tmp_path, uri):
    root = tmp_path / "quick"
    runs = [make_run(root, "ptb", "none", None, seed) for seed in (0, 1)]
    (tmp_path / "b/quick/ptb").mkdir(parents=True)
    (tmp_path / "b/quick/ptb/none.tsv").write_text(
        "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
        "12.5\t0:00:12\t345.25\t1\t1\t1\t0.5\tNA\t97.5\t12.25\n"
    )
    track(root, runs, uri, benchmarks=tmp_path / "b")
    system = {
        k: v for k, v in runs_of(uri, "spectralgru/quick/ptb")["none"].data.metrics.items() if "system" in k
    }
    assert system == {
        "system/wall_seconds": 12.5,
        "system/memory_megabytes_max": 345.25,
        "system/disk_read_megabytes": 0.5,
        "system/cpu_percent_mean": 97.5,
        "system/cpu_seconds": 12.25,
    }
    assert track(root, runs, uri, benchmarks=tmp_path / "b").written == 0


def test_a_version_is_made_only_when_the_best_model_changes(trained, registered, store):
    data, root, runs = trained
    assert track(root, runs, store, data=data).models == []
    client = open_store(store)
    first = best_of(runs, "ptb")
    others = [d for d in runs if d.parent != first.parent]
    assert "spectralgru-quick-ptb 2" in track(root, others, store, data=data).models
    assert client.get_model_version_by_alias("spectralgru-quick-ptb", "best").version == 2
    # The first one is best again: its version is there.
    assert track(root, runs, store, data=data).models == []
    assert client.get_model_version_by_alias("spectralgru-quick-ptb", "best").version == 1
