"""Bounds on the gates, and the growth of the state's gradient in one step that they guarantee."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spectralgru import GRU, SpectralConstraint, clip_singular_values
from spectralgru.errors import InputError

INPUT = 3
KINDS = {
    "our GRU": lambda h: GRU(INPUT, h),
    "our GRU, after": lambda h: GRU(INPUT, h, reset="after"),
    "GRU": lambda h: nn.GRU(INPUT, h),
    "GRUCell": lambda h: nn.GRUCell(INPUT, h),
    "LSTM": lambda h: nn.LSTM(INPUT, h),
    "LSTMCell": lambda h: nn.LSTMCell(INPUT, h, bias=False),
    "RNN": lambda h: nn.RNN(INPUT, h),
    "RNN, relu": lambda h: nn.RNN(INPUT, h, nonlinearity="relu"),
    "RNNCell": lambda h: nn.RNNCell(INPUT, h),
}
GATED = [name for name in KINDS if "RNN" not in name]


def sigma(matrix):
    return torch.linalg.matrix_norm(matrix.detach().double(), 2).max().item()


def blocks(module):
    """The square blocks of every recurrent weight, by name."""
    names = {
        1: ["candidate"],
        3: ["reset", "update", "candidate"],
        4: ["input", "forget", "candidate", "output"],
    }
    for name, weight in module.named_parameters():
        if "weight_hh" in name:
            parts = weight.detach().split(weight.shape[-1], -2)
            yield from ((f"{name}.{n}", part) for n, part in zip(names[len(parts)], parts, strict=True))


def is_lstm(module):
    return isinstance(module, nn.LSTM | nn.LSTMCell)


def own_step(module, pushes, state):
    """The module's next state; its input's weights are the identity, so that an input may push to anywhere."""
    x, h = pushes[None], state[None]
    if not isinstance(module, nn.RNNCellBase):
        x, h = x[None], h[None]
    if is_lstm(module):
        h = tuple(part.contiguous() for part in h.chunk(2, -1))
    out = module(x, h)
    out = out if isinstance(module, nn.RNNCellBase) else out[1]
    return (torch.cat(out, -1) if is_lstm(module) else out).flatten()


def plain_step(module, pushes, state):
    """The same by its equations, which can be differentiated twice."""
    weights = dict(module.named_parameters())
    weight = next(p for name, p in weights.items() if "weight_hh" in name)
    both = [p for name, p in weights.items() if "bias" in name]
    w = weight.split(weight.shape[-1])
    x = (pushes + both[0] if both else pushes).split(weight.shape[-1])
    b = both[1].split(weight.shape[-1]) if both else [torch.zeros(())] * len(w)
    if isinstance(module, nn.RNN | nn.RNNCell):
        return (torch.relu if module.nonlinearity == "relu" else torch.tanh)(x[0] + w[0] @ state + b[0])
    if is_lstm(module):
        h, c = state.chunk(2)
        i, f, g, o = (x[k] + w[k] @ h + b[k] for k in range(4))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * c.tanh(), c])
    r, z = ((x[k] + w[k] @ state + b[k]).sigmoid() for k in range(2))
    before = isinstance(module, GRU) and module.reset == "before"
    n = (x[2] + (w[2] @ (r * state) if before else r * (w[2] @ state + b[2]))).tanh()
    return z * state + (1 - z) * n


def with_any_input(kind, hidden, scale, seed):
    """A module in float64 with random recurrent weights and biases, and the identity for the input's weights."""
    generator = torch.Generator().manual_seed(seed)
    module = KINDS[kind](hidden).double()
    for name, parameter in list(module.named_parameters()):
        if "weight_ih" in name:
            rows = parameter.shape[-2]
            setattr(module, name, nn.Parameter(torch.eye(rows, dtype=torch.float64)))
            module.input_size = rows
        else:
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = scale * hidden**-0.5 * drawn if parameter.dim() > 1 else drawn
    return module, rows, generator


def norm_of_jacobian(step, module, pushes, state):
    jacobian = torch.func.jacrev(lambda s: step(module, pushes, s))(state)
    return torch.linalg.matrix_norm(jacobian, 2)


def state_of(free, module, cell):
    """Within reach: |h| <= 1, and |c| <= cell of an LSTM."""
    if is_lstm(module):
        h, c = free.tanh().chunk(2, -1)
        return torch.cat([h, cell * c], -1)
    return free if getattr(module, "nonlinearity", "") == "relu" else free.tanh()


@given(
    kind=st.sampled_from(sorted(KINDS)),
    hidden=st.integers(1, 6),
    scale=st.floats(0.01, 30),
    push=st.floats(0, 20),
    cell=st.floats(0, 30),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_no_input_and_state_makes_a_step_grow_more(kind, hidden, scale, push, cell, seed):
    module, rows, generator = with_any_input(kind, hidden, scale, seed)
    bound = SpectralConstraint(module, delta=0.2, gates=2.0 if kind in GATED else None).growth_bound(cell)
    pushes = push * torch.randn(rows, generator=generator, dtype=torch.float64)
    free = 2 * torch.randn((1 + is_lstm(module)) * hidden, generator=generator, dtype=torch.float64)
    state = state_of(free, module, cell)
    torch.testing.assert_close(plain_step(module, pushes, state), own_step(module, pushes, state))
    assert norm_of_jacobian(plain_step, module, pushes, state) <= bound * (1 + 1e-9)


# How near gradient ascent comes to the bound, at least: a bound far above what can happen would say little.
NEAR = {"our GRU": 0.7, "GRU": 0.55, "LSTM": 0.7, "RNN": 0.95, "RNN, relu": 0.95}


@pytest.mark.parametrize(
    ("kind", "gates"), [(k, g) for k in NEAR for g in ((1.0, 8.0) if k in GATED else (None,))]
)
def test_gradient_ascent_on_state_input_and_weights_comes_near_and_never_past(kind, gates):
    cell, best = 1.5, 0.0
    module, rows, generator = with_any_input(kind, 4, 2.0, seed=1)
    constraint = SpectralConstraint(module, delta=0.2, gates=gates)
    pushes = torch.zeros(8, rows, dtype=torch.float64, requires_grad=True)
    free = torch.randn(8, (1 + is_lstm(module)) * 4, generator=generator, dtype=torch.float64)
    weights = [p for name, p in module.named_parameters() if "weight_hh" in name]
    optimizer = torch.optim.Adam([pushes, free.requires_grad_(), *weights], lr=0.1)
    norms = torch.func.vmap(lambda p, s: norm_of_jacobian(plain_step, module, p, s))
    for _ in range(80):
        grown = norms(pushes, state_of(free, module, cell))
        bound = constraint.growth_bound(cell)
        best = max(best, float(grown.detach().max()) / bound)
        optimizer.zero_grad()
        (-grown.sum()).backward()
        optimizer.step()
        constraint.project_()
    assert NEAR[kind] < best <= 1 + 1e-9


def enlarged(kind, hidden=12, factor=8.0):
    torch.manual_seed(0)
    module = KINDS[kind](hidden)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "weight" in name:
                parameter *= factor
    return module


@pytest.mark.parametrize("kind", GATED)
def test_gates_are_projected_and_the_candidate_as_without(kind):
    module, free = enlarged(kind), enlarged(kind)
    before = dict(blocks(enlarged(kind)))
    reports = SpectralConstraint(module, delta=0.2, gates=1.25).project_()
    SpectralConstraint(free, delta=0.2)
    candidates = dict(blocks(free))
    for name, block in blocks(module):
        weight, _, part = name.rpartition(".")
        if part == "candidate":
            torch.testing.assert_close(block, candidates[name])
            assert reports[weight].sigma_max == pytest.approx(sigma(block), rel=1e-4)
        else:
            assert sigma(before[name]) > 1.3
            torch.testing.assert_close(block, clip_singular_values(before[name], 1.25), atol=1e-4, rtol=1e-4)
            assert reports[name].sigma_max == pytest.approx(1.25, rel=1e-4)
    others = [
        (a, b)
        for (n, a), b in zip(module.named_parameters(), free.parameters(), strict=True)
        if "hh" not in n
    ]
    assert all(torch.equal(a, b) for a, b in others)


@pytest.mark.parametrize("kind", [nn.RNN, nn.RNNCell])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_an_rnn_is_made_to_contract(kind, nonlinearity):
    module = kind(INPUT, 12, nonlinearity=nonlinearity)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 8
    constraint = SpectralConstraint(module, delta=0.2)
    constraint.attach(torch.optim.SGD([module.weight_hh if kind is nn.RNNCell else module.weight_hh_l0]))
    assert constraint.growth_bound() == pytest.approx(0.9, rel=1e-5)


def test_replicas_directions_and_layers_are_all_bounded():
    gru = GRU(INPUT, 6, num_layers=2, replicas=2)
    with torch.no_grad():
        for parameter in gru.parameters():
            parameter *= 9
        gru.weight_hh_l1[1] *= 2  # the one that counts
    SpectralConstraint(gru, gates=2.0)
    assert all(sigma(b) <= (1.8 if "candidate" in n else 2) * (1 + 1e-6) for n, b in blocks(gru))
    gru = nn.GRU(INPUT, 6, bidirectional=True, bias=False)
    with torch.no_grad():
        gru.weight_hh_l0_reverse *= 5
    constraint = SpectralConstraint(gru)
    reset, update, candidate = gru.weight_hh_l0_reverse.detach().double().chunk(3)
    path = (
        sigma(candidate) ** 2 + (5**0.5 - 1) ** 5 / 32 * sigma(candidate.abs().sum(1)[:, None] * reset) ** 2
    )
    assert constraint.growth_bound() == pytest.approx((1 + path + sigma(update) ** 2 / 2) ** 0.5)


def test_training_keeps_the_gates_and_the_guarantee():
    """Without, the same training leaves both."""
    largest = {}
    for gates in (None, 1.5):
        torch.manual_seed(0)
        model = nn.ModuleList([GRU(4, 16), nn.Linear(16, 1)])
        optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
        constraint = SpectralConstraint(model, delta=0.5, gates=gates)
        constraint.attach(optimizer)
        seen = []
        for _ in range(8):
            x = torch.randn(10, 8, 4)
            (model[1](model[0](x)[0][-1]) - x.sum((0, 2))[:, None]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(constraint.growth_bound())
        largest[gates] = max(seen)
    golden = ((5**0.5 - 1) / 2) ** 5
    assert largest[1.5] <= (1 + 2.25 * (1 + golden * 2.25) + 2.25 / 2) ** 0.5 * (1 + 1e-6) < largest[None]


def test_the_cell_of_an_lstm_has_no_bound_of_its_own():
    lstm = nn.LSTM(INPUT, 4)
    constraint = SpectralConstraint(lstm, gates=1.0)
    assert constraint.growth_bound() == math.inf
    assert constraint.growth_bound(cell=1) < constraint.growth_bound(cell=35) < math.inf
    with torch.no_grad():
        lstm.weight_hh_l0[4:8] = 0  # no way through the forget gate
    assert constraint.growth_bound() == constraint.growth_bound(cell=0)


def test_no_number_is_given_for_weights_that_are_not_finite():
    gru = nn.GRU(INPUT, 4, num_layers=2)
    constraint = SpectralConstraint(gru, gates=1.0)
    with torch.no_grad():
        gru.weight_hh_l1[0, 0] = math.nan
    assert math.isnan(constraint.growth_bound())
    assert constraint.project_()["weight_hh_l1.reset"].sigma_max.isnan()


def test_biases_that_are_not_finite_leave_gates_alone_too():
    gru = enlarged("GRU", 4)
    with torch.no_grad():
        gru.bias_hh_l0[0] = math.inf
    before = gru.weight_hh_l0.detach().clone()
    SpectralConstraint(gru, gates=1.0)
    assert torch.equal(gru.weight_hh_l0, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpectralConstraint(nn.GRU(2, 2), gates=0), "gates=0: must be a number above 0"),
        (lambda: SpectralConstraint(nn.GRU(2, 2), gates=math.nan), "gates=nan"),
        (lambda: SpectralConstraint(nn.GRU(2, 2), gates="1"), "gates='1'"),
        (
            lambda: SpectralConstraint(nn.RNN(2, 2), gates=1.5),
            r"gates=1.5: RNN has no gated module; leave it out",
        ),
        (lambda: SpectralConstraint(nn.LSTM(2, 2)).growth_bound(-1), "cell=-1: must be a number, at least 0"),
        (lambda: SpectralConstraint(nn.LSTM(2, 2)).growth_bound(math.nan), "cell=nan"),
    ],
)
def test_wrong_use_names_the_thing_and_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_state_with_gates_goes_on_and_fits_no_other():
    constraint = SpectralConstraint(enlarged("GRU"), gates=2.0)
    again = SpectralConstraint(enlarged("GRU"), gates=2.0)
    again.load_state_dict(constraint.state_dict())
    assert list(constraint.state_dict()) == ["weight_hh_l0", "weight_hh_l0.reset", "weight_hh_l0.update"]
    without = SpectralConstraint(enlarged("GRU"))
    with pytest.raises(
        InputError, match=r"'weight_hh_l0.reset'.* does not fit a module with \['weight_hh_l0'\]"
    ):
        without.load_state_dict(constraint.state_dict())
