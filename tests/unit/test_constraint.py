"""SpectralConstraint on PyTorch's modules, and the stability it promises, measured with autograd."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from spectralgru.constraint import SpectralConstraint
from spectralgru.errors import InputError, RunError
from spectralgru.recurrent.gru import GRU
from spectralgru.spectral import clip_singular_values

MAKERS = {
    "our GRU": lambda: GRU(6, 12, num_layers=2),
    "our GRU, replicas": lambda: GRU(6, 12, replicas=3),
    "GRU": lambda: nn.GRU(6, 12, num_layers=2, bidirectional=True, bias=False),
    "GRUCell": lambda: nn.GRUCell(6, 12, bias=False),
    "LSTM": lambda: nn.LSTM(6, 12, num_layers=2, bias=False),
    "LSTMCell": lambda: nn.LSTMCell(6, 12, bias=False),
}
BLOCKS = {"our GRU": 2, "our GRU, replicas": 1, "GRU": 4, "GRUCell": 1, "LSTM": 2, "LSTMCell": 1}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def candidates(module):
    return [
        w.detach()[..., 2 * w.shape[-1] : 3 * w.shape[-1], :]
        for n, w in module.named_parameters()
        if "weight_hh" in n
    ]


def enlarge(module, factor=8.0):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= factor


def largest(matrix):
    return torch.linalg.svdvals(matrix.double())[..., 0].max().item()


@pytest.mark.parametrize("name", MAKERS)
def test_every_candidate_block_and_nothing_else_is_projected(name):
    module = MAKERS[name]()
    enlarge(module)
    before = copy.deepcopy(module)
    assert any(largest(w) > 1.8 for w in candidates(module))
    reports = SpectralConstraint(module, delta=0.2).project_()
    assert len(reports) == BLOCKS[name]
    for (key, old), new in zip(before.named_parameters(), module.parameters(), strict=True):
        hidden = old.shape[-1]
        want = old.detach().clone()
        if "weight_hh" in key:
            rows = want[..., 2 * hidden : 3 * hidden, :]
            rows.copy_(clip_singular_values(rows, 1.8))
        torch.testing.assert_close(new.detach(), want, atol=1e-4, rtol=1e-4)
        assert "weight_hh" in key or torch.equal(new, old)


def stack_jacobian(module, point):
    """Jacobian of a cell's (flattened) state at `point`, input zero."""
    hidden = module.hidden_size

    def step(state):
        x = torch.zeros(1, module.input_size, dtype=state.dtype)
        if isinstance(module, nn.LSTMCell):
            return torch.cat(module(x, (state[None, :hidden], state[None, hidden:])), 1)[0]
        return module(x, state[None])[0]

    assert torch.allclose(step(point), point), "not a fixed point"
    return torch.autograd.functional.jacobian(step, point)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("biases", [False, True])
def test_the_origin_is_stable_with_and_without_gate_biases(kind, biases, seed):
    torch.manual_seed(seed)
    cell = kind(3, 10, bias=biases).double()
    enlarge(cell, 12.0)
    if biases:
        with torch.no_grad():
            for bias in (cell.bias_ih, cell.bias_hh):
                bias /= 6
                bias[20:30] = 0  # candidate: the origin stays a fixed point
    origin = torch.zeros(20 if kind is nn.LSTMCell else 10, dtype=torch.float64)
    before = torch.linalg.eigvals(stack_jacobian(cell, origin)).abs().max()
    SpectralConstraint(cell, delta=0.1)
    after = torch.linalg.eigvals(stack_jacobian(cell, origin)).abs().max()
    assert after < 1 < before


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
def test_the_bound_is_sharp_for_equal_gates(kind):
    """W = c I is stable just below the limit and not above: no larger bound would do."""
    cell = kind(2, 4).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.bias_ih[:8] = torch.tensor([0.3] * 4 + [0.7] * 4)
        if kind is nn.LSTMCell:
            cell.bias_ih[12:] = -0.2
        cell.weight_hh[8:12] = 100 * torch.eye(4)
    origin = torch.zeros(8 if kind is nn.LSTMCell else 4, dtype=torch.float64)
    SpectralConstraint(cell, delta=0.02)
    stable = torch.linalg.eigvals(stack_jacobian(cell, origin)).abs().max().item()
    assert 0.98 < stable < 1
    with torch.no_grad():
        cell.weight_hh[8:12] *= 1 / 0.99 * 1.01
    assert torch.linalg.eigvals(stack_jacobian(cell, origin)).abs().max() > 1


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 16, bias=False)
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0][-1])


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=3.0),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.3),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mode", ["plain", "accumulation", "amp", "compile"])
def test_holds_after_every_optimizer_step(optimizer, mode):
    model = Model()
    free = copy.deepcopy(model)
    enlarge(model.rnn, 3)
    stepped = {}
    for name, net, constrained in (("held", model, True), ("free", free, False)):
        opt = OPTIMIZERS[optimizer](net.parameters())
        if constrained:
            SpectralConstraint(net, delta=0.5).attach(opt)
        run = torch.compile(net, backend="eager") if mode == "compile" else net
        seen = []
        for step in range(12):
            x = torch.randn(10, 8, 4)
            with torch.autocast("cpu", torch.bfloat16, enabled=mode == "amp"):
                loss = (run(x).float() - x.sum((0, 2))[:, None]).square().mean()
            loss.backward()
            if mode != "accumulation" or step % 2:
                opt.step()
                opt.zero_grad()
            seen.append(max(map(largest, candidates(net))))
        stepped[name] = seen
    assert max(stepped["held"]) <= 1.5 * (1 + 1e-6)
    assert max(stepped["free"]) > 1.5


def test_grad_scaler_skips_without_harm():
    model = Model()
    opt = torch.optim.SGD(model.parameters(), lr=1.0)
    calls = []
    constraint = SpectralConstraint(model, delta=0.5)
    constraint.attach(opt)
    original = constraint.project_
    constraint.project_ = lambda: calls.append(1) or original()
    scaler = torch.amp.GradScaler("cpu")
    for factor in (1.0, float("inf")):
        opt.zero_grad()
        loss = model(torch.randn(5, 2, 4)).sum() * factor
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
    assert len(calls) == 1  # the step with infinite gradients was not carried out


def test_removing_the_handle_ends_it():
    model = Model()
    opt = torch.optim.SGD(model.parameters(), lr=1.0)
    handle = SpectralConstraint(model, delta=1.5).attach(opt)
    handle.remove()
    enlarge(model)
    model(torch.randn(5, 2, 4)).sum().backward()
    opt.step()
    assert max(map(largest, candidates(model))) > 0.5


def test_state_dict_continues_bit_identically():
    def train(model, constraint, steps):
        for _ in range(steps):
            with torch.no_grad():
                model.rnn.weight_hh_l0 += 0.05 * torch.randn(48, 16)
            constraint.project_()

    model = Model()
    constraint = SpectralConstraint(model, delta=0.4)
    train(model, constraint, 5)
    other = copy.deepcopy(model)
    resumed = SpectralConstraint(other, delta=0.4)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(constraint.state_dict()))
    torch.manual_seed(1)
    train(model, constraint, 5)
    torch.manual_seed(1)
    train(other, resumed, 5)
    assert torch.equal(model.rnn.weight_hh_l0, other.rnn.weight_hh_l0)


def _ddp_worker(rank, store, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Model())
    opt = torch.optim.SGD(model.parameters(), lr=3.0)
    constraint = SpectralConstraint(model, delta=0.5)
    constraint.attach(opt)
    torch.manual_seed(10 + rank)
    for _ in range(6):
        opt.zero_grad()
        x = torch.randn(10, 8, 4)
        (model(x) - x.sum((0, 2))[:, None]).square().mean().backward()
        opt.step()
    SpectralConstraint(model.module, delta=0.5).load_state_dict(constraint.state_dict())  # the names fit
    torch.save(model.module.state_dict(), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_under_ddp_all_ranks_keep_the_same_projected_weights(tmp_path):
    # Not forked: torch's threads, used before, would not be there.
    torch.multiprocessing.spawn(_ddp_worker, (tmp_path / "store", tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert largest(first["rnn.weight_hh_l0"][32:]) == pytest.approx(1.5, rel=2e-5)


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_a_state_fits_with_and_without_a_wrapper(wrap):
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner  # no wrapper, though it is called like one

    model = Outer(Model())
    plain, whole = SpectralConstraint(model), SpectralConstraint(wrap(model))
    part = SpectralConstraint(Outer(wrap(Model())))
    assert list(plain.state_dict()) == ["module.rnn.weight_hh_l0"]
    for constraint in (whole, part):
        constraint.load_state_dict(plain.state_dict())
        plain.load_state_dict(constraint.state_dict())


def test_a_state_of_another_size_is_refused_and_nothing_loaded():
    def two(second):
        return SpectralConstraint(nn.ModuleList([nn.GRU(2, 8), nn.GRU(2, second)]))

    constraint = two(8)
    before = constraint.state_dict()
    with pytest.raises(InputError, match=r"1\.weight_hh_l0: .*\[1, 6, 6\], the module's is \[1, 8, 8\]"):
        constraint.load_state_dict(two(6).state_dict())
    assert all(
        torch.equal(block["last"], before[name]["last"]) for name, block in constraint.state_dict().items()
    )


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_model_and_constraint_is_of_its_own(duplicate):
    model = Model()
    pair = (model, SpectralConstraint(model, delta=0.5))
    other, constraint = duplicate(pair)
    enlarge(model)
    enlarge(other)
    constraint.project_()
    assert largest(candidates(other)[0]) <= 1.5 * (1 + 1e-6) < largest(candidates(model)[0])


def test_one_optimizer_on_several_constrained_modules():
    models = [Model(), Model()]
    opt = torch.optim.SGD([p for m in models for p in m.parameters()], lr=1.0)
    for model, delta in zip(models, (0.5, 1.0), strict=True):
        SpectralConstraint(model, delta).attach(opt)
        enlarge(model)
    sum(model(torch.randn(5, 2, 4)).sum() for model in models).backward()
    opt.step()
    for model, bound in zip(models, (1.5, 1.0), strict=True):
        assert largest(candidates(model)[0]) == pytest.approx(bound, rel=1e-5)


REPARAMETRISED = {
    "weight_norm": (lambda m: weight_norm(m, "weight_hh_l1"), "weight_hh_l1"),
    "weight_norm of the whole": (lambda m: weight_norm(m, "weight_hh_l1", dim=None), "weight_hh_l1"),
    "parametrised": (lambda m: parametrizations.weight_norm(m, "weight_hh_l1"), "weight_hh_l1"),
    # Its result is the parameter itself.
    "identity": (
        lambda m: parametrize.register_parametrization(m, "weight_hh_l1", nn.Identity()),
        "weight_hh_l1",
    ),
    "pruned": (lambda m: prune.l1_unstructured(m, "weight_hh_l1", 0.5), "weight_hh_l1"),
    "pruned bias": (lambda m: prune.l1_unstructured(m, "bias_hh_l0", 0.5), "bias_hh_l0"),
    "parametrised bias": (lambda m: parametrizations.weight_norm(m, "bias_ih_l1"), "bias_ih_l1"),
    "not the layer's": (
        lambda m: m.register_parameter("weight_hh_scale", nn.Parameter(torch.ones(1))),
        "weight_hh_scale",
    ),
    "deleted": (lambda m: delattr(m, "weight_hh_l1"), "weight_hh_l1"),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`")
@pytest.mark.parametrize("name", REPARAMETRISED)
def test_what_is_not_the_layers_own_parameter_is_refused(name):
    change, parameter = REPARAMETRISED[name]
    model = nn.ModuleDict({"rnn": nn.GRU(4, 8, num_layers=2)})
    later = copy.deepcopy(model)
    change(model["rnn"])
    with pytest.raises(InputError, match=rf"rnn: {parameter} .*undo it"):
        SpectralConstraint(model)
    if parameter == "weight_hh_scale":
        return
    constraint = SpectralConstraint(later)
    change(later["rnn"])
    enlarge(later)
    before = copy.deepcopy(later.state_dict())
    with pytest.raises(InputError, match=rf"rnn: {parameter} .*undo it"):
        constraint.project_()
    assert all(torch.equal(value, before[key]) for key, value in later.state_dict().items())


def test_the_inputs_weights_may_be_reparametrised():
    gru = nn.GRU(4, 8)
    parametrizations.weight_norm(gru, "weight_ih_l0")
    enlarge(gru)
    (report,) = SpectralConstraint(gru).project_().values()
    assert largest(gru.weight_hh_l0.detach()[16:]) == pytest.approx(report.sigma_max.item(), rel=1e-5)
    assert report.sigma_max < 2


def assign(module, state):
    module.load_state_dict(state, assign=True)


def replace(module, state):
    for name, value in state.items():
        setattr(module, name, nn.Parameter(value))


@pytest.mark.parametrize("way", [assign, replace])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_put_in_place_of_others_are_the_ones_that_count(way, dtype):
    gru = nn.GRU(4, 16)
    constraint = SpectralConstraint(gru, delta=0.2)
    constraint.project_()  # nothing to do: the spectrum is known to lie below the bound
    other = nn.GRU(4, 16, dtype=dtype)
    enlarge(other, 50)
    way(gru, other.state_dict())
    constraint.project_()
    limit = 1 / torch.sigmoid((gru.bias_ih_l0 + gru.bias_hh_l0).detach().double()[:16]).max().item()
    assert limit < 1.2  # with the biases that were replaced about 1.8
    assert largest(gru.weight_hh_l0.detach()[32:]) == pytest.approx(0.9 * limit, rel=2e-5)


def test_a_weight_of_another_shape_is_refused():
    cell = nn.GRUCell(2, 4)
    constraint = SpectralConstraint(cell)
    cell.weight_hh = nn.Parameter(torch.zeros(15, 5))
    with pytest.raises(InputError, match=r"GRUCell: weight_hh has shape \[15, 5\], and had \[12, 4\]"):
        constraint.project_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_holds_after_a_conversion(dtype):
    gru = nn.GRU(4, 16, bias=False)
    enlarge(gru)
    constraint = SpectralConstraint(gru, delta=0.2)
    gru.to(dtype)
    for _ in range(3):
        with torch.no_grad():
            gru.weight_hh_l0 += 0.5 * torch.randn_like(gru.weight_hh_l0)
        constraint.project_()
        assert largest(gru.weight_hh_l0.detach()[32:]) <= 1.8 * (
            1 + (1e-6 if dtype == torch.float64 else 1e-2)
        )
    assert constraint.state_dict()["weight_hh_l0"]["last"].dtype == dtype


def tied_cells():
    cells = nn.ModuleList([nn.GRUCell(2, 8), nn.GRUCell(2, 8)])
    cells[1].weight_hh = cells[0].weight_hh
    enlarge(cells)
    return cells


@pytest.mark.parametrize("open_one", [0, 1])
def test_a_shared_weight_obeys_the_lowest_limit(open_one):
    cells = tied_cells()
    with torch.no_grad():
        cells[open_one].bias_ih[:8] = 100.0  # limit 1
        cells[1 - open_one].bias_ih[:8] = -100.0  # hardly any
    reports = SpectralConstraint(cells, delta=0.2).project_()
    assert list(reports) == ["0.weight_hh"]
    assert largest(cells[0].weight_hh.detach()[16:]) == pytest.approx(0.9, rel=2e-5)
    assert reports["0.weight_hh"].sigma_max.item() == pytest.approx(0.9, rel=2e-5)


def test_a_weight_that_is_no_longer_shared_is_constrained_too():
    cells = tied_cells()
    constraint = SpectralConstraint(cells)
    state = {key: 8 * value for key, value in cells.state_dict().items()}
    cells.load_state_dict(state, assign=True)
    assert cells[0].weight_hh is not cells[1].weight_hh
    assert list(constraint.project_()) == ["0.weight_hh", "1.weight_hh"]
    assert max(map(largest, candidates(cells))) < 2


def lstm_with(forget, other=0.0):
    lstm = nn.LSTM(3, 8)
    with torch.no_grad():
        lstm.bias_ih_l0.zero_()
        lstm.bias_hh_l0.zero_()
        lstm.bias_ih_l0[:8] = other
        lstm.bias_ih_l0[8:16] = forget
    return lstm


@pytest.mark.parametrize(
    ("forget", "other", "limit"),
    [
        (7.0, 0.0, 4 / (1 + math.exp(7))),
        (40.0, -40.0, 2.0),  # i = 1 - f, which 1 - sigmoid(40) is not in float64
        (-40.0, -1000.0, math.inf),
    ],
)
def test_the_limit_is_accurate_where_gates_saturate(forget, other, limit):
    lstm = lstm_with(forget, other)
    enlarge(lstm)
    with torch.no_grad():
        lstm.bias_ih_l0 /= 8
        lstm.bias_ih_l0[:8] = other
    before = largest(lstm.weight_hh_l0.detach()[16:24])
    SpectralConstraint(lstm, delta=0.2)
    assert largest(lstm.weight_hh_l0.detach()[16:24]) == pytest.approx(min(before, 0.9 * limit), rel=2e-5)


def test_a_closed_reset_gate_leaves_the_candidate_free():
    cell = nn.GRUCell(2, 8)
    enlarge(cell)
    with torch.no_grad():
        cell.bias_ih[:8] = -1000.0
    before = cell.weight_hh.detach().clone()
    SpectralConstraint(cell)
    assert torch.equal(cell.weight_hh, before)


@pytest.mark.parametrize("forget", [10.0, 40.0, 1000.0])
def test_biases_that_would_delete_an_lstms_recurrence_are_an_error(forget):
    message = (
        rf"rnn: bias_ih_l0 \+ bias_hh_l0, up to {forget:g} at the forget gate, .*lower the forget gate's bias"
    )
    with pytest.raises(InputError, match=message):
        SpectralConstraint(nn.ModuleDict({"rnn": lstm_with(forget)}))
    model = nn.ModuleDict({"first": nn.GRU(3, 8), "rnn": lstm_with(1.0)})
    constraint = SpectralConstraint(model)
    enlarge(model["first"])
    with torch.no_grad():
        model["rnn"].bias_ih_l0[8:16] = forget
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RunError, match=message):
        constraint.project_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bias_that_is_not_finite_is_reported_and_its_weight_left_alone(kind, value):
    model = nn.ModuleDict({"bad": kind(3, 8), "good": kind(3, 8)})
    constraint = SpectralConstraint(model)
    enlarge(model)
    healthy = model["bad"].bias_ih_l0.detach().clone()
    before = model["bad"].weight_hh_l0.detach().clone()
    with torch.no_grad():
        model["bad"].bias_ih_l0[:] = value
    reports = constraint.project_()
    assert reports["bad.weight_hh_l0"].sigma_max.isnan().all()
    assert not reports["bad.weight_hh_l0"].projected.any()
    assert torch.equal(model["bad"].weight_hh_l0, before)
    assert reports["good.weight_hh_l0"].projected.all()
    with torch.no_grad():
        model["bad"].bias_ih_l0.copy_(healthy)
    assert constraint.project_()["bad.weight_hh_l0"].projected.all()
    assert largest(model["bad"].weight_hh_l0.detach()[16:24]) < 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpectralConstraint(nn.GRU(2, 2), delta=2.0), "delta=2.0"),
        (lambda: SpectralConstraint(nn.GRU(2, 2), delta="0.2"), "delta='0.2': must be a number"),
        (lambda: SpectralConstraint([nn.GRU(2, 2)]), "a list is no torch.nn.Module"),
        (lambda: SpectralConstraint(nn.Linear(2, 2)), "Linear: contains none of"),
        (lambda: SpectralConstraint(nn.LSTM(2, 4, proj_size=2)), "proj_size=2"),
        (lambda: SpectralConstraint(Model()).load_state_dict({}), "does not fit"),
    ],
)
def test_wrong_use_names_the_thing_and_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_default_device_does_not_matter():
    module = nn.GRU(4, 8, bias=False)
    enlarge(module)
    with torch.device("meta"):
        SpectralConstraint(module).project_()
    assert largest(candidates(module)[0]) <= 1.8 * (1 + 1e-6)
