"""Finite-time Lyapunov exponents against Jacobians that autograd computes, in float64."""

import math

import pytest
import torch
from torch import nn

from spectralgru import jacobian_at_origin, spectral_radius
from spectralgru.diagnosis.cells import Cell
from spectralgru.diagnosis.lyapunov import lyapunov_exponents
from spectralgru.errors import InputError
from spectralgru.recurrent.gru import gru_layer

KINDS = {"GRU, reset before": 3, "GRU, reset after": 3, "LSTM": 4, "RNN, tanh": 1, "RNN, relu": 1}
H, WIDTH, T, B = 5, 3, 7, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def cell_of(kind, gain=1.0, hidden=H, lead=()):
    rows = KINDS[kind] * hidden
    return Cell(
        kind,
        torch.randn(*lead, rows, WIDTH, dtype=torch.float64),
        gain * torch.randn(*lead, rows, hidden, dtype=torch.float64) / math.sqrt(hidden),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_all_directions_together_grow_by_the_determinant_of_the_product(kind):
    cell, x = cell_of(kind, 2.0), torch.randn(T, B, WIDTH, dtype=torch.float64)
    if kind == "RNN, relu":  # where it is 0, it loses directions
        x, cell = x.abs(), Cell(kind, cell.weight_ih.abs(), cell.weight_hh.abs())
    size = cell.state_size
    got = lyapunov_exponents(cell, x, count=size)
    for lane in range(B):
        state, product = torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
        volume = 0.0
        for a in cell.project(x)[:, lane]:
            jacobian = torch.autograd.functional.jacobian(lambda h, a=a: cell.step(a, h), state)
            state, product, volume = cell.step(a, state), jacobian @ product, volume + jacobian.slogdet()[1]
        assert got.exponents[lane].sum().item() * T == pytest.approx(volume.item(), rel=1e-9)
        assert torch.allclose(got.state[lane], state)
        # One direction grows at most as the largest singular value, and nearly so once it has turned.
        largest = torch.linalg.svdvals(product)[0].log().item() / T
        assert got.exponents[lane, 0] <= largest + 1e-12


def test_the_largest_is_that_of_the_product_when_the_window_is_long():
    cell, x = cell_of("GRU, reset before", 4.0), torch.randn(120, 1, WIDTH, dtype=torch.float64)
    got = lyapunov_exponents(cell, x, count=2)
    product, logs, state = torch.eye(H, dtype=torch.float64), 0.0, torch.zeros(H, dtype=torch.float64)
    for a in cell.project(x)[:, 0]:
        product = torch.autograd.functional.jacobian(lambda h, a=a: cell.step(a, h), state) @ product
        state, norm = cell.step(a, state), product.norm()
        product, logs = product / norm, logs + norm.log()
    exact = (logs + torch.linalg.svdvals(product)[0].log()) / 120
    assert got.exponents[0, 0].item() == pytest.approx(exact.item(), abs=0.02)
    assert got.exponents[0, 1] < got.exponents[0, 0]
    assert torch.equal(got.exponents, got.steps.mean(0))
    alone = lyapunov_exponents(cell, x)
    assert torch.allclose(alone.exponents[:, 0], got.exponents[:, 0])


@pytest.mark.parametrize("gain", [1.0, 8.0])
def test_at_the_origin_it_is_the_spectral_radius(gain):
    cell = cell_of("GRU, reset before", gain)
    got = lyapunov_exponents(cell, torch.zeros(400, 1, WIDTH, dtype=torch.float64), transient=200)
    radius = spectral_radius(jacobian_at_origin(cell.blocks()["candidate"]))
    if gain == 1.0:  # else the state leaves the unstable origin
        assert got.exponents.item() == pytest.approx(radius.log().item(), abs=0.01)
    assert (radius > 1) == (gain == 8.0)


def test_replicas_lanes_and_starts_are_those_of_the_layer():
    cell = cell_of("GRU, reset before", 3.0, lead=(2,))
    x, starts = torch.randn(2, T, B, WIDTH, dtype=torch.float64), torch.zeros(2, T, B, dtype=torch.bool)
    starts[0, 3, 1] = starts[1, 5, 2] = True
    got = lyapunov_exponents(cell, x, count=2, starts=starts)
    _, last = gru_layer(x, None, cell.weight_ih, cell.weight_hh, starts)
    assert torch.allclose(got.state, last)
    assert got.exponents.shape == (2, B, 2)
    assert got.exponents.isfinite().all()
    alone = Cell(cell.kind, cell.weight_ih[1], cell.weight_hh[1])
    lane = lyapunov_exponents(alone, x[1, :, 2:3], count=2, starts=starts[1, :, 2:3])
    assert torch.allclose(got.exponents[1, 2:3], lane.exponents)


@pytest.mark.parametrize("asked", [{"count": 0}, {"count": H + 1}, {"transient": T}, {"transient": -1}])
def test_what_cannot_be_is_refused(asked):
    with pytest.raises(InputError, match=f"{next(iter(asked))}={next(iter(asked.values()))}: must be"):
        lyapunov_exponents(
            cell_of("GRU, reset after"), torch.zeros(T, B, WIDTH, dtype=torch.float64), **asked
        )


MODULES = {
    "GRU, reset after": nn.GRUCell(WIDTH, H),
    "LSTM": nn.LSTMCell(WIDTH, H),
    "RNN, tanh": nn.RNNCell(WIDTH, H),
    "RNN, relu": nn.RNNCell(WIDTH, H, nonlinearity="relu"),
}


@pytest.mark.parametrize("kind", MODULES)
def test_a_step_is_that_of_pytorch(kind):
    module = MODULES[kind].double()
    cell = Cell(kind, module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh)
    x, state = torch.randn(B, WIDTH).double(), torch.randn(B, cell.state_size).double()
    theirs = module(x, state.chunk(2, -1) if kind == "LSTM" else state)
    theirs = torch.cat(theirs, -1) if kind == "LSTM" else theirs
    assert torch.allclose(cell.step(cell.project(x), state), theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_path_keeps_the_values_and_loses_its_gradient(kind):
    cell = cell_of(kind)
    a, state = cell.project(torch.randn(B, WIDTH).double()).detach(), torch.randn(B, cell.state_size).double()

    def jacobian(cut):
        return torch.autograd.functional.jacobian(lambda h: cell.step(a, h, cut), state)

    assert not jacobian(cell.paths).any()
    whole = jacobian(())
    for path in cell.paths:
        others = tuple(p for p in cell.paths if p != path)
        assert torch.equal(cell.step(a, state, (path,)), cell.step(a, state))
        if kind != "LSTM" and "before" not in kind:  # the step is a sum over the paths
            assert torch.allclose(whole - jacobian((path,)), jacobian(others))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
def test_exponents_can_be_differentiated_by_weights_inputs_and_state(kind, count):
    cell, x = cell_of(kind, 2.0), torch.randn(4, 2, WIDTH, dtype=torch.float64)
    if kind == "RNN, relu":
        x, cell = x.abs(), Cell(kind, cell.weight_ih.abs(), cell.weight_hh.abs())
    state = 0.1 * torch.rand(2, cell.state_size, dtype=torch.float64)
    given = [w.requires_grad_() for w in (cell.weight_ih, cell.weight_hh, x, state)]

    def found(w_ih, w_hh, x, state):
        return lyapunov_exponents(
            Cell(kind, w_ih, w_hh), x, state, count=count, differentiable=True
        ).exponents

    assert torch.autograd.gradcheck(found, given)
    assert not lyapunov_exponents(cell, x, state, count=count).exponents.requires_grad
