"""One GRU layer on a GPU against the plain equations in float64, the unfused sweeps and cuDNN."""

from itertools import product

import pytest
import torch

from spectralgru.recurrent import fused, sweeps
from spectralgru.recurrent.dropout import dropout_masks
from spectralgru.recurrent.gru import gru_layer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

SHAPES = [(None, 7, 3, 19, 11), (3, 7, 3, 19, 11), (2, 35, 20, 200, 200), (2, 35, 20, 650, 650)]
CASES = list(product(SHAPES, ("before", "after"), (False, True)))


def tensors(shape, masked, dtype=torch.float32):
    replicas, steps, batch, hidden, width = shape
    lead = () if replicas is None else (replicas,)
    torch.manual_seed(0)
    scale = hidden**-0.5
    x, h0 = torch.randn(*lead, steps, batch, width), torch.randn(*lead, batch, hidden)
    w_ih = scale * torch.randn(*lead, 3 * hidden, width)
    w_hh = scale * torch.randn(*lead, 3 * hidden, hidden)
    starts = torch.rand(*lead, steps, batch) < 0.2 if masked else None
    grad = torch.randn(*lead, steps, batch, hidden)
    return (
        [t.cuda().to(dtype) for t in (x, h0, w_ih, w_hh)],
        starts if starts is None else starts.cuda(),
        grad,
    )


def run(leaves, starts, grad, reset):
    leaves = [t.detach().requires_grad_() for t in leaves]
    output, last = gru_layer(*leaves, starts, reset)
    assert torch.equal(output.select(-3, -1), last)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad.to(output))]


def relative(got, want):
    return ((got.cpu().double() - want.cpu().double()).norm() / want.cpu().double().norm()).item()


@pytest.mark.parametrize(("shape", "reset", "masked"), CASES)
def test_equals_the_equations_in_float64(shape, reset, masked):
    leaves, starts, grad = tensors(shape, masked)
    plain = [t.cpu().double() for t in leaves]
    want = run(plain, None if starts is None else starts.cpu(), grad, reset)
    for a, b in zip(run(leaves, starts, grad, reset), want, strict=True):
        assert relative(a, b) < 1e-5


@pytest.mark.parametrize("reset", ["before", "after"])
def test_float64_and_autocast(reset):
    leaves, starts, grad = tensors(SHAPES[1], True)
    want = run([t.cpu().double() for t in leaves], starts.cpu(), grad, reset)
    for a, b in zip(run([t.double() for t in leaves], starts, grad, reset), want, strict=True):
        assert relative(a, b) < 1e-12
    with torch.autocast("cuda", torch.bfloat16):
        rough = run(leaves, starts, grad, reset)
    assert rough[0].dtype == torch.bfloat16
    for a, b in zip(rough, want, strict=True):
        assert relative(a, b) < 5e-2


@pytest.mark.skipif(not fused.AVAILABLE, reason="triton is not installed")
@pytest.mark.parametrize(("shape", "reset", "masked"), CASES)
def test_fused_sweeps_equal_the_unfused(shape, reset, masked):
    (x, h0, w_ih, w_hh), starts, grad = tensors(shape, masked)
    keep = None if starts is None else (~starts).unsqueeze(-1)
    before, grad = reset == "before", grad.cuda()
    inputs = sweeps.Inputs(x, h0, w_ih, w_hh, keep)
    got, want = (s.forward(inputs, before) for s in (fused, sweeps))
    for a, b in zip(got, want, strict=True):
        assert relative(a, b) < 1e-5
    backward = (
        fused.backward(grad, inputs, got, before, True),
        sweeps.backward(grad, inputs, want, before, True),
    )
    for a, b in zip(*backward, strict=True):
        assert relative(a, b) < 1e-5


def test_equals_cudnn():
    leaves, _, grad = tensors((None, 35, 20, 200, 200), False)
    theirs = torch.nn.GRU(200, 200, bias=False, device="cuda")
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(leaves[2])
        theirs.weight_hh_l0.copy_(leaves[3])
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # by default it is off within
        output = theirs(leaves[0], leaves[1][None])[0]
        want = [output.detach(), *torch.autograd.grad(output, list(theirs.parameters()), grad.cuda())]
    assert "Cudnn" in type(output.grad_fn).__name__
    got = run(leaves, None, grad, "after")
    for a, b in zip((got[0], *got[3:]), want, strict=True):
        assert relative(a, b) < 1e-5


def test_dropout_masks_are_those_of_a_cpu():
    shape = (3, 35, 20, 200)
    for step in (0, 2**32 + 5):
        seeds, drawn = torch.tensor([1, 2, 2**40 + 1]), torch.tensor([step])
        got = dropout_masks(seeds.cuda(), drawn.cuda(), shape, 0.3)
        assert torch.equal(got.cpu(), dropout_masks(seeds, drawn, shape, 0.3))
