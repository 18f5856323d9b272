"""Forms of the projection timed along one training, and the table made of the times."""

from itertools import islice

import numpy as np
import pytest
import torch

import tiny
from spectralgru.errors import InputError
from spectralgru.pipeline.experiments import base
from spectralgru.pipeline.experiments.cost.metered import MeteredProjector, metered_steps
from spectralgru.pipeline.experiments.cost.results import ALTERNATIVES, sentences, tabulate
from spectralgru.pipeline.experiments.cost.truncated import TruncatedProjection
from spectralgru.pipeline.params import load_params
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.spectral import clip_singular_values
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings, Replica

MODEL = ModelSettings(hidden_size=24, num_layers=2, input_scale=1.0, dropout=0.2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    tiny.write_corpora(data)
    return load(data / "prepared/chorales.npz")


@pytest.mark.parametrize("step", [0.003, 0.05, 0.4])
def test_the_truncated_projection_is_the_projection(step):
    generator = torch.Generator().manual_seed(0)
    weight, bound = torch.linalg.qr(torch.randn(60, 60, generator=generator))[0], 1.2
    truncated, decomposed = TruncatedProjection(bound), 0
    for _ in range(40):
        update = torch.randn(60, 60, generator=generator)
        weight = weight + update * (step / torch.linalg.matrix_norm(update)) * 3
        expected = clip_singular_values(weight, bound, "svd")
        found = truncated.project(weight.clone(), 3 * step)
        decomposed += found is not weight
        assert torch.linalg.matrix_norm(found - expected) <= 1e-4 * torch.linalg.matrix_norm(expected)
        sigma = torch.linalg.svdvals(found.double()).numpy()
        assert np.all(sigma <= truncated.bounds + 1e-4)
        weight = found
    assert decomposed > 0


def test_the_truncated_projection_skips_what_cannot_have_crossed_the_bound():
    truncated, weight = TruncatedProjection(1.5), torch.eye(30)
    truncated.project(weight, float("inf"))
    moved = weight + 0.01 * torch.eye(30)
    assert truncated.project(moved, 0.3) is moved


def test_a_training_that_diverges_is_not_timed(corpus):
    steps = metered_steps(corpus, MODEL, Replica("constraint", 0.2, 0, 1e12), 4, 10, warm_up=1)
    with pytest.raises(
        InputError, match=r"chorales, delta 0.2: the training has diverged by step .*learning_rate"
    ):
        list(islice(steps, 20))


def test_metering_leaves_the_training_as_it_is(corpus):
    replica = Replica("constraint", 1.1, 0, 0.5)
    metered, plain = (Engine(corpus, MODEL, [replica], 4, torch.device("cpu")) for _ in range(2))
    metered.projector = MeteredProjector(metered)
    stream = training_stream(corpus, [0], 1, 4, 10, torch.device("cpu"))
    for index in range(5):
        metered.step(stream.chunk(index))
        plain.step(stream.chunk(index))
    for ours, theirs in zip(metered.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("warm_up", [0, 1, 7])
def test_every_step_tells_what_every_method_took(corpus, warm_up):
    steps = metered_steps(corpus, MODEL, Replica("constraint", 1.4, 0, 0.5), 4, 10, warm_up)
    found = [next(steps) for _ in range(30)]
    assert all(step.keys() == {*ALTERNATIVES, "above"} for step in found)
    assert all(step[name] > 0 for step in found for name in ALTERNATIVES)
    assert any(step["above"] > 0 for step in found)


def test_the_warm_up_is_training_too(corpus):
    replica = Replica("constraint", 1.4, 0, 0.5)
    late, early = (metered_steps(corpus, MODEL, replica, 4, 10, warm_up) for warm_up in (6, 0))
    above = [next(early)["above"] for _ in range(12)]
    assert [next(late)["above"] for _ in range(6)] == above[6:]


def record(delta, none, svd):
    steps = [
        {
            "none": n,
            "clipping": 0.01 * n,
            "naive SVD": svd,
            "truncated SVD": 0.5 * svd,
            "ours": 0.1 * svd,
            "above": 2,
        }
        for n in none
    ]
    return {"corpus": "ptb", "delta": delta, "steps": steps}


def test_the_table_holds_medians_of_laps_and_their_spread():
    table = tabulate([record(0.2, [1, 1, 1, 3, 2], 1.0)]).set_index("method")
    naive = table.loc["naive SVD"]
    assert (naive["seconds"], naive["low"], naive["high"]) == (2, 2, 4)
    assert naive["share"] == pytest.approx(0.5)
    assert table.loc["none", "share"] == 0
    assert table.loc["ours", "above"] == 2


def test_the_sentences_follow_the_numbers():
    table = tabulate([record(0.2, [1.0] * 10, 0.5), record(1.4, [1.0] * 10, 0.05)])
    said = " ".join(sentences(table, load_paper().cost))
    assert "Ours costs less than naive SVD in 2 of 2 cases" in said
    assert "Ours costs less than clipping in 1 of 2 cases" in said
    assert "†" in said


def test_timings_on_more_than_one_thread_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    tiny.write_corpora(tmp_path)
    params = load_params(tiny.Path(__file__).parents[2] / "params.yaml", {"corpora": ["chorales"]})
    means = base.Means(tmp_path, tmp_path / "out", tmp_path / "checkpoints")
    with pytest.raises(InputError, match="OMP_NUM_THREADS"):
        base.make_part(params, "cost", base.chosen_parts(params, "cost")[0], means)
