"""Products of a lower precision in training: what they change, what stays float32, and where they are refused."""

from dataclasses import replace

import pytest
import torch

import tiny
from spectralgru.errors import InputError
from spectralgru.records import read_run, run_path
from spectralgru.recurrent.layer import gru_layer
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.precision import check_precision
from spectralgru.training.settings import ModelSettings
from spectralgru.training.train import train

CPU = torch.device("cpu")
LANES, STEPS = 6, 10
HALF = 2**-8  # bfloat16 keeps eight bits
HAS_BFLOAT16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@pytest.fixture(scope="module", params=["ptb", "chorales"])
def corpus(request, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    tiny.write_corpora(data)
    return load(data / "prepared" / f"{request.param}.npz")


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("replicas", [(), (2,)])
def test_a_layer_keeps_its_states_in_float32_when_its_inputs_are_lower(reset, replicas):
    torch.manual_seed(0)
    shapes = ((5, 3, 7), (3, 8), (24, 7), (24, 8))
    x, h0, w_ih, w_hh = (torch.randn(*replicas, *shape) for shape in shapes)
    lower = [x.bfloat16(), h0, w_ih.bfloat16(), w_hh]
    rounded = [t.double() for t in lower]
    results = []
    for tensors in (lower, rounded):
        leaves = [t.clone().requires_grad_() for t in tensors]
        states, _ = gru_layer(*leaves[:2], *leaves[2:], reset=reset)
        (states * torch.linspace(-1, 1, 8).to(states)).sum().backward()
        results.append([states.detach(), *(leaf.grad for leaf in leaves)])
    assert results[0][0].dtype == torch.float32
    for found, expected, given in zip(results[0][1:], results[1][1:], lower, strict=True):
        assert found.dtype == given.dtype
        torch.testing.assert_close(
            found.double(), expected, rtol=0, atol=4 * HALF * float(expected.abs().max())
        )
    torch.testing.assert_close(results[0][0].double(), results[1][0], rtol=0, atol=4 * HALF)
    assert (results[0][0] - results[1][0]).abs().max() > 1e-5  # the products were rounded


def test_states_of_another_type_than_the_recurrent_weights_are_refused():
    x, w_ih, w_hh = torch.zeros(2, 3, 4).bfloat16(), torch.zeros(15, 4).bfloat16(), torch.zeros(15, 5)
    with pytest.raises(InputError, match=r"h0 is torch\.bfloat16"):
        gru_layer(x, torch.zeros(3, 5).bfloat16(), w_ih, w_hh)
    with pytest.raises(InputError, match=r"weight_ih is torch\.float32"):
        gru_layer(x, None, w_ih.float(), w_hh)


def engine(corpus, replicas, precision, layers=2):
    settings = ModelSettings(12, layers, input_scale=0.5, dropout=0.3)
    return Engine(corpus, settings, replicas, LANES, CPU, precision=precision)


def steps(made, corpus, count=6):
    stream = training_stream(corpus, [r.seed for r in made.replicas], 1, LANES, STEPS, CPU)
    return torch.stack([torch.stack(made.step(stream.chunk(i))) for i in range(count)])


def test_bfloat16_products_change_a_training_by_their_rounding_and_nothing_else(corpus):
    full, lower = (engine(corpus, tiny.EVERY_METHOD, p) for p in ("float32", "bfloat16"))
    expected, found = steps(full, corpus), steps(lower, corpus)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    assert not torch.equal(found, expected)
    assert {p.dtype for p in lower.model.parameters()} == {lower.state.dtype} == {torch.float32}


def test_with_bfloat16_products_a_run_still_does_not_depend_on_its_company(corpus):
    company, alone = (engine(corpus, r, "bfloat16") for r in (tiny.EVERY_METHOD, tiny.EVERY_METHOD[1:2]))
    assert torch.equal(steps(company, corpus)[:, :, 1:2], steps(alone, corpus))
    for name, value in alone.model.weights_of(0).items():
        assert torch.equal(company.model.weights_of(1)[name], value)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16 products")
def test_the_precision_is_part_of_a_run_and_of_its_record(tmp_path):
    tiny.write_corpora(tmp_path)
    job = tiny.job("ptb", epochs=1)
    lower = replace(job, training=replace(job.training, precision="bfloat16"))
    places = (tmp_path / "prepared/ptb.npz", tmp_path / "results", tmp_path / "checkpoints")
    runs = [train(j, *places)[0] for j in (job, lower, lower)]
    assert runs[0].key != runs[1].key
    assert runs[1] == runs[2]  # the second time there is nothing to do
    assert runs[1].settings["training"]["precision"] == "bfloat16"
    assert read_run(run_path(tmp_path / "results", "ptb", "constraint", 0.2, 0)) == runs[1]


def test_a_precision_that_the_device_lacks_is_refused(tmp_path, monkeypatch):
    tiny.write_corpora(tmp_path)
    job = tiny.job("ptb", epochs=1)
    job = replace(job, training=replace(job.training, precision="tf32"))
    with pytest.raises(InputError, match=r"training\.precision is tf32: a CPU has no TF32; use float32"):
        train(job, tmp_path / "prepared/ptb.npz", tmp_path / "results", tmp_path / "checkpoints")
    assert not (tmp_path / "results").exists()
    for instructions in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, instructions, lambda: False)
    with pytest.raises(InputError, match=r"bfloat16: this processor has no bfloat16 products"):
        check_precision("bfloat16", CPU)
