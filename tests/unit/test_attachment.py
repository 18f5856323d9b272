"""What could silently break an attached constraint: it holds all the same, or an error says so (docs/library.md)."""

import copy
import inspect
import io
import math
import pickle
import types
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from spectralgru import GRU, SpectralConstraint
from spectralgru.errors import InputError, RunError

BOUND = 1.5
NEVER_PROJECTED = "was changed twice and not projected"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


class Model(nn.Module):
    def __init__(self, bias=False):
        super().__init__()
        self.rnn = nn.GRU(4, 16, bias=bias)
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0][-1])


def sgd(model, rate=3.0):
    return torch.optim.SGD(model.parameters(), lr=rate)


def loss_of(model):
    x = torch.randn(10, 8, 4, dtype=next(model.parameters()).dtype)
    return (model(x) - x.sum((0, 2))[:, None]).square().mean()


def sigma(model):
    return torch.linalg.svdvals(model.rnn.weight_hh_l0.detach()[32:].double())[0].item()


def train(model, *optimizers, steps=6):
    """The largest sigma_1 after any of the steps."""
    worst = 0.0
    for _ in range(steps):
        loss_of(model).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        worst = max(worst, sigma(model))
    return worst


def attached(bias=False):
    model = Model(bias)
    optimizer = sgd(model)
    constraint = SpectralConstraint(model, delta=0.5)
    handle = constraint.attach(optimizer)
    return model, optimizer, constraint, handle


def holds(largest):
    return largest <= BOUND * (1 + 1e-6)


@pytest.fixture(autouse=True)
def _no_false_alarm():
    """A warning that no test expects is a failure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{NEVER_PROJECTED}")
        yield


def test_free_training_leaves_the_bound():
    """Else the tests below would say nothing."""
    model = Model()
    assert train(model, sgd(model)) > 2 * BOUND


# At attach


@pytest.mark.parametrize("bias", [False, True])
def test_an_optimizer_without_the_weights_is_refused(bias):
    model = Model(bias)
    constraint = SpectralConstraint(model, delta=0.5)
    others = [torch.optim.SGD(model.out.parameters()), sgd(copy.deepcopy(model))]
    if bias:  # the bound follows the biases
        others.append(torch.optim.SGD([p for n, p in model.named_parameters() if "bias_ih" not in n]))
    for optimizer in others:
        with pytest.raises(InputError, match=r"SGD does not hold rnn\.\w+"):
            constraint.attach(optimizer)
        assert not optimizer._optimizer_step_post_hooks
    assert not model.rnn._forward_pre_hooks


def test_some_of_the_weights_are_not_enough():
    model = nn.ModuleList([nn.GRU(4, 16), nn.GRU(4, 16), nn.Linear(2, 2)])
    parts = [torch.optim.SGD(part.parameters()) for part in model]
    constraint = SpectralConstraint(model)
    with pytest.raises(
        InputError, match=r"SGD does not hold 1\.weight_hh_l0 and 2 more: .*attach\(first, second\)"
    ):
        constraint.attach(parts[0])
    constraint.attach(*parts)
    SpectralConstraint(model[1]).attach(parts[1])


@pytest.mark.parametrize(
    "wrong", [lambda m, o: m, lambda m, o: [o], lambda m, o: None, lambda m, o: m.parameters()]
)
def test_what_is_no_optimizer_is_refused(wrong):
    model = Model()
    with pytest.raises(InputError, match=r"is not a torch.optim.Optimizer .*constraint\.project_\(\)"):
        SpectralConstraint(model).attach(wrong(model, sgd(model)))


def test_several_optimizers_share_the_work():
    model = Model(bias=True)
    biases = [p for name, p in model.named_parameters() if "bias" in name]
    weights = [p for name, p in model.named_parameters() if "bias" not in name]
    first, second = torch.optim.SGD(weights, lr=3.0), torch.optim.SGD(biases, lr=0.3)
    SpectralConstraint(model, delta=0.5).attach(first, second)
    train(model, first, second)
    total = (model.rnn.bias_ih_l0 + model.rnn.bias_hh_l0).detach().double()
    assert sigma(model) <= 0.75 / torch.sigmoid(total[:16]).max() * (1 + 1e-6)


def test_attaching_again_replaces_the_hook_and_removing_ends_it():
    model, optimizer, constraint, first = attached()
    second = constraint.attach(optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == len(model.rnn._forward_pre_hooks) == 1
    assert holds(train(model, optimizer))
    second.remove()
    first.remove()
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not model.rnn._forward_pre_hooks
    assert not holds(train(model, optimizer))  # and no warning
    with constraint.attach(optimizer):
        assert holds(train(model, optimizer))
    assert not optimizer._optimizer_step_post_hooks


def test_a_constraint_made_anew_every_epoch_takes_the_place_of_the_last():
    model = Model()
    optimizer = sgd(model, rate=1.0)
    for delta in (1.5, 1.0, 0.5):
        SpectralConstraint(model, delta).attach(optimizer)
        assert len(optimizer._optimizer_step_post_hooks) == len(optimizer._optimizer_step_pre_hooks) == 1
        assert len(model.rnn._forward_pre_hooks) == 1
        model.rnn.weight_hh_l0.data.mul_(10)  # above any bound
        assert train(model, optimizer) == pytest.approx(2 - delta, rel=1e-4)  # the last one's bound
    for _ in range(3):  # and a new optimiser
        optimizer = sgd(model, rate=0.1)
        handle = SpectralConstraint(model, delta=0.5).attach(optimizer)
        assert holds(train(model, optimizer))
        assert len(model.rnn._forward_pre_hooks) == 1
    handle.remove()
    assert not model.rnn._forward_pre_hooks


def test_constraints_on_other_weights_stay():
    models = nn.ModuleList([Model(), Model()])
    optimizer = sgd(models)
    first = SpectralConstraint(models[0], delta=0.5).attach(optimizer)
    second = SpectralConstraint(models[1], delta=0.5).attach(optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == 2
    SpectralConstraint(models, delta=0.5).attach(optimizer)  # on both: it takes the place of both
    assert len(optimizer._optimizer_step_post_hooks) == 1
    first.remove()
    second.remove()
    for model in models:
        assert len(model.rnn._forward_pre_hooks) == 1
    (loss_of(models[0]) + loss_of(models[1])).backward()
    optimizer.step()
    assert all(holds(sigma(model)) for model in models)


# Copies


def through_torch(things):
    file = io.BytesIO()
    torch.save(things, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


DUPLICATES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),
    "torch.save": through_torch,
}


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 1, 3), (3, 2, 1, 0), (1, 2, 0, 3)])
def test_a_copy_with_its_constraint_goes_on_constrained(duplicate, order):
    things = attached()
    copies = DUPLICATES[duplicate]([things[i] for i in order])
    model, optimizer, _, handle = (copies[order.index(i)] for i in range(4))
    assert len(optimizer._optimizer_step_post_hooks) == 1
    assert holds(train(model, optimizer))
    handle.remove()
    assert not holds(train(model, optimizer))
    assert len(things[1]._optimizer_step_post_hooks) == 1
    assert holds(train(*things[:2]))


def test_a_trainer_that_holds_all_three_may_be_copied_for_every_fold():
    trainer = types.SimpleNamespace(
        **dict(zip(("model", "optimizer", "constraint"), attached(), strict=False))
    )
    for fold in [copy.deepcopy(trainer) for _ in range(2)]:
        assert holds(train(fold.model, fold.optimizer))


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_a_copy_without_its_constraint_is_found_out(duplicate):
    model, optimizer, _, _ = attached()
    model, optimizer = DUPLICATES[duplicate]((model, optimizer))
    with pytest.warns(UserWarning, match=rf"rnn: weight_hh_l0 {NEVER_PROJECTED}") as caught:
        train(model, optimizer)
    assert len([w for w in caught if NEVER_PROJECTED in str(w.message)]) == 1  # said once
    SpectralConstraint(model, delta=0.5).attach(optimizer)  # the line that helps
    assert holds(train(model, optimizer))


def test_a_copy_made_after_a_step_that_failed_is_found_out_too():
    model, optimizer, _, _ = attached()
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    model, optimizer = copy.deepcopy((model, optimizer))
    with pytest.warns(UserWarning, match=NEVER_PROJECTED):
        train(model, optimizer)


def test_a_removed_constraint_stays_removed_in_copies():
    *things, handle = attached()
    handle.remove()
    model, optimizer, _ = copy.deepcopy(things)
    assert not holds(train(model, optimizer))


# Steps that no hook sees


def step_by_hand(optimizer):
    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= 3.0 * parameter.grad

    optimizer.step = types.MethodType(step, optimizer)
    return optimizer


@pytest.mark.parametrize(
    "other", [step_by_hand, lambda o: torch.optim.SGD(o.param_groups[0]["params"], lr=3.0)]
)
def test_a_step_that_runs_no_hook_is_found_out(other):
    model, optimizer, _, _ = attached()
    with pytest.warns(UserWarning, match=NEVER_PROJECTED):
        train(model, other(optimizer))


def test_evaluation_and_edits_between_steps_are_no_false_alarm():
    model, optimizer, constraint, _ = attached()
    start = copy.deepcopy(model.state_dict())
    for _ in range(3):
        train(model, optimizer, steps=1)
        model.load_state_dict(start)  # as a search of learning rates does
        train(model, optimizer, steps=1)
        average = copy.deepcopy(model)
        for _ in range(3):  # an exponential average swapped in and out
            model.rnn.weight_hh_l0.data, average.rnn.weight_hh_l0.data = (
                average.rnn.weight_hh_l0.data,
                model.rnn.weight_hh_l0.data,
            )
            model.eval()
            model(torch.randn(3, 2, 4))
            model.train()
            with torch.no_grad():
                model(torch.randn(3, 2, 4))
    for _ in range(5):  # projected by hand
        with torch.no_grad():
            model.rnn.weight_hh_l0 *= 2
        constraint.project_()
        loss_of(model).backward()
    assert holds(sigma(model))


def test_copies_that_follow_a_model_without_being_trained_are_no_false_alarm():
    """Target networks and averages, which run in training mode too."""
    model, optimizer, _, handle = attached()
    target, average = copy.deepcopy(model), AveragedModel(model)
    for _ in range(6):
        train(model, optimizer, steps=1)
        target.load_state_dict(model.state_dict())
        average.update_parameters(model)
        assert holds(sigma(target))
        assert holds(sigma(average.module))
        (loss_of(model) + loss_of(target).detach() + loss_of(average).detach()).backward()
    handle.remove()
    assert not model.rnn.weight_hh_l0._post_accumulate_grad_hooks
    with pytest.warns(UserWarning, match=NEVER_PROJECTED):  # now it is trained
        train(target, sgd(target))


# Optimisers of other kinds


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation: the gradient is taken at perturbed weights, the step from the others."""

    def __init__(self, params, base, **options):
        super().__init__(params, options)
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["old"] = parameter.data.clone()
                parameter += 0.5 * parameter.grad
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = self.state[parameter]["old"]
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure):
        closure()
        self.first_step()
        closure()
        self.second_step()


@pytest.mark.parametrize("closure", [False, True])
def test_two_step_optimizers(closure):
    model = Model()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=3.0)
    SpectralConstraint(model, delta=0.5).attach(optimizer)
    for _ in range(6):
        if closure:
            optimizer.step(lambda: loss_of(model).backward())
        else:
            loss_of(model).backward()
            optimizer.first_step()
            loss_of(model).backward()
            optimizer.second_step()
        assert holds(sigma(model))


def test_an_optimizer_that_runs_the_model_itself():
    model = Model()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=8)
    SpectralConstraint(model, delta=0.5).attach(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        assert holds(sigma(model))


@pytest.mark.parametrize(
    "options",
    [{"foreach": True}, {"foreach": False}, {"fused": True}, {"amsgrad": True, "weight_decay": 0.1}],
)
def test_every_implementation_of_a_step(options):
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3, **options)
    SpectralConstraint(model, delta=0.5).attach(optimizer)
    assert holds(train(model, optimizer))


@pytest.mark.parametrize("first", [False, True])
def test_schedulers_wrap_step_and_nothing_is_lost(first):
    model = Model()
    optimizer = sgd(model)
    if first:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    SpectralConstraint(model, delta=0.5).attach(optimizer)
    if not first:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    for _ in range(4):
        assert holds(train(model, optimizer, steps=1))
        scheduler.step()
    other = Model()
    SpectralConstraint(other, delta=0.5).attach(torch.optim.lr_scheduler.ConstantLR(inside := sgd(other)))
    assert len(inside._optimizer_step_post_hooks) == 1


class Bare:
    """A wrapper that is no Optimizer, as Lightning's and DeepSpeed's."""

    def __init__(self, inner):
        self.inner = inner

    def step(self):
        self.inner.step()

    def zero_grad(self):
        self.inner.zero_grad()


class Uninitialised(torch.optim.Optimizer):
    """A wrapper that is an Optimizer by name, whose own hooks never run, as accelerate's."""

    def __init__(self, inner):
        self.optimizers = [inner]

    def step(self):
        self.optimizers[0].step()

    def zero_grad(self):
        self.optimizers[0].zero_grad()


@pytest.mark.parametrize("wrap", [Bare, Uninitialised, lambda o: Bare(Uninitialised(o))])
def test_the_optimizer_inside_a_wrapper_is_found(wrap):
    model = Model()
    optimizer = wrap(sgd(model))
    SpectralConstraint(model, delta=0.5).attach(optimizer)
    assert holds(train(model, optimizer))


class Averaging(torch.optim.SGD):
    def train(self):
        """Of the schedule-free kind."""

    def eval(self):
        """Puts the average in place."""


@pytest.mark.parametrize("wrap", [lambda o: o, Bare, Uninitialised])
def test_schedule_free_optimizers_are_refused(wrap):
    model = Model()
    with pytest.raises(
        InputError,
        match=r"Averaging, after its eval\(\), evaluates weights .*project_\(\) after optimizer.eval",
    ):
        SpectralConstraint(model).attach(wrap(Averaging(model.parameters())))


def test_schedulefree_itself_is_refused():
    schedulefree = pytest.importorskip("schedulefree")
    model = Model()
    for optimizer in (
        schedulefree.AdamWScheduleFree(model.parameters()),
        schedulefree.ScheduleFreeWrapper(sgd(model)),
    ):
        with pytest.raises(InputError, match="evaluates weights"):
            SpectralConstraint(model).attach(optimizer)


def test_accelerate_itself():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Model()
    prepared, optimizer = accelerator.prepare(model, sgd(model))
    SpectralConstraint(prepared, delta=0.5).attach(optimizer)
    for _ in range(8):
        with accelerator.accumulate(prepared):
            accelerator.backward(loss_of(prepared))
            optimizer.step()
            optimizer.zero_grad()
        assert holds(sigma(model))


def test_a_compiled_step():
    model, optimizer, _, _ = attached()
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(model).backward()
        step()
        assert holds(sigma(model))


def test_the_watch_breaks_no_compiled_graph():
    cell = nn.GRUCell(4, 8)
    SpectralConstraint(cell).attach(sgd(cell))
    torch.compile(cell, backend="eager", fullgraph=True)(torch.randn(3, 4)).sum().backward()


# Weights that are replaced, moved, frozen, sharded


def replace(model):
    model.rnn.weight_hh_l0 = nn.Parameter(2 * model.rnn.weight_hh_l0.detach())


def untie(model):
    model.load_state_dict(model.state_dict(), assign=True)


@pytest.mark.parametrize("change", [replace, untie])
def test_a_weight_that_the_optimizer_no_longer_holds_is_found_out(change):
    model, optimizer, constraint, _ = attached()
    train(model, optimizer, steps=2)
    change(model)
    with pytest.raises(RunError, match=r"rnn\.weight_hh_l0, trained, is no longer held .*add_param_group"):
        train(model, optimizer, steps=1)
    assert holds(sigma(model))
    again = sgd(model)
    constraint.attach(again)
    assert holds(train(model, again))


def test_a_frozen_layer_may_be_left_out_until_it_is_thawed():
    model = Model(bias=True)
    model.rnn.requires_grad_(False)
    optimizer = torch.optim.SGD(model.out.parameters(), lr=0.1)
    SpectralConstraint(model, delta=0.5).attach(optimizer)
    train(model, optimizer, steps=2)
    model.rnn.requires_grad_(True)
    with pytest.raises(RunError, match=r"rnn\.weight_hh_l0 and 2 more, trained, .*thawed"):
        train(model, optimizer, steps=1)
    optimizer.add_param_group({"params": model.rnn.parameters(), "lr": 0.1})
    train(model, optimizer, steps=2)


def test_a_module_put_in_place_of_another_is_found_out():
    model, optimizer, _, _ = attached()
    model.rnn = nn.GRU(4, 16, bias=False)
    optimizer.add_param_group({"params": model.rnn.parameters()})
    with pytest.raises(InputError, match="rnn is no longer the module that was constrained"):
        train(model, optimizer, steps=1)
    del model.rnn
    with pytest.raises(InputError, match="rnn is no longer the module that was constrained"):
        optimizer.step()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        lambda m: parametrizations.spectral_norm(m, "weight_hh_l0"),
        lambda m: prune.l1_unstructured(m, "weight_hh_l0", 0.5),
    ],
)
def test_a_reparametrisation_after_attaching_is_found_out(change):
    model, optimizer, _, _ = attached()
    change(model.rnn)
    with pytest.raises(InputError, match="not one of the layer's own parameters"):
        train(model, optimizer, steps=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_converted_while_attached(dtype):
    model, optimizer, _, _ = attached()
    train(model, optimizer, steps=2)
    model.to(dtype)
    optimizer.zero_grad()
    assert train(model, optimizer) <= BOUND * (1 + (1e-6 if dtype == torch.float64 else 1e-2))


def through_data(weight):
    weight.data.add_(torch.randn_like(weight))


def in_place(weight):
    with torch.no_grad():
        weight += 0.3 * torch.randn_like(weight)


def other_storage(weight):
    weight.data = weight.data * 1.7


def one_direction(weight):
    """The one that was smallest, outside every subspace that is followed."""
    left, _, right = torch.linalg.svd(weight.data[32:])
    weight.data[32:] += 3 * torch.outer(left[:, -1], right[-1])


@pytest.mark.parametrize("edit", [through_data, in_place, other_storage, one_direction])
def test_edits_between_steps_do_not_outlive_the_next_step(edit):
    model, _, constraint, handle = attached()
    handle.remove()
    optimizer = sgd(model, 1e-9)  # what a step moves says nothing about what the edit moved
    constraint.attach(optimizer)
    for _ in range(8):
        edit(model.rnn.weight_hh_l0)
        assert holds(train(model, optimizer, steps=1))


def train_on(model, optimizer):
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


@pytest.mark.parametrize("gates", [None, 1.5])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_said_once(value, gates):
    model = Model()
    SpectralConstraint(model, delta=0.5, gates=gates).attach(optimizer := sgd(model))
    with torch.no_grad():
        model.out.weight.fill_(value)
    with pytest.warns(UserWarning, match=r"rnn\.weight_hh_l0 or its biases are not finite") as caught:
        train_on(model, optimizer)
    assert len(caught) == 1


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, GRU])
def test_weights_on_the_meta_device_are_refused(kind):
    with torch.device("meta"):
        module = kind(4, 8)
    with pytest.raises(InputError, match=r"on meta; .*to_empty"):
        SpectralConstraint(module)
    module.to_empty(device="cpu")
    module.load_state_dict(kind(4, 8).state_dict())
    SpectralConstraint(module)


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_sharded_weights_are_refused():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    with pytest.raises(InputError, match=r"weight_hh_l0 is a DTensor; .*DistributedDataParallel"):
        SpectralConstraint(fully_shard(Model(), mesh=mesh))
    model = Model()
    constraint = SpectralConstraint(model)
    fully_shard(model, mesh=mesh)
    with pytest.raises(InputError, match="weight_hh_l0 is a DTensor"):
        constraint.attach(sgd(model))


@pytest.mark.usefixtures("process_group")
def test_recurrent_modules_left_out_of_sharding_are_held():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        pytest.skip("this torch cannot leave parameters out")
    model = Model()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)), ignored_params=set(model.rnn.parameters()))
    optimizer = sgd(model)
    SpectralConstraint(model, delta=0.5).attach(optimizer)
    assert type(model.out.weight).__name__ == "DTensor"
    assert holds(train(model, optimizer))


def test_a_shard_of_a_weight_is_refused():
    """As FSDP with `use_orig_params` leaves them."""
    gru = nn.GRU(4, 16)
    gru.weight_hh_l0 = nn.Parameter(gru.weight_hh_l0.detach().flatten()[:384])
    with pytest.raises(
        InputError, match=r"GRU: weight_hh_l0 has shape \[384\]; expected \[48, 16\]\. .*FSDP"
    ):
        SpectralConstraint(gru)


# Averages


def test_hooks_registered_before_see_the_projected_weights():
    model = Model()
    optimizer = sgd(model)
    average, seen = AveragedModel(model), []
    optimizer.register_step_post_hook(
        lambda *_: (seen.append(sigma(model)), average.update_parameters(model))
    )
    SpectralConstraint(model, delta=0.5).attach(optimizer)
    train(model, optimizer)
    assert all(map(holds, seen))
    assert holds(sigma(average.module))


def test_averages_stay_below_the_bound_without_biases():
    model, optimizer, _, _ = attached()
    average = AveragedModel(model)
    for _ in range(6):
        train(model, optimizer, steps=1)
        average.update_parameters(model)
        assert holds(sigma(average.module))


def test_averages_with_biases_are_brought_below_theirs_by_a_constraint_of_their_own():
    """The bound is convex in the biases: that of their average may be lower than the average of the bounds."""
    models = []
    for reset in (-4.0, 0.0):
        gru = nn.GRU(4, 16)
        with torch.no_grad():
            gru.bias_hh_l0.zero_()
            gru.bias_ih_l0.fill_(reset)
            gru.weight_hh_l0[32:] = 100 * torch.eye(16)
        SpectralConstraint(gru, delta=0.5)
        models.append(nn.ModuleDict({"rnn": gru}))
    average = AveragedModel(models[0])
    for model in models:
        average.update_parameters(model)
    bound = 0.75 * (1 + math.exp(2))
    assert sigma(average.module) > 3 * bound
    SpectralConstraint(average.module, delta=0.5)
    assert sigma(average.module) == pytest.approx(bound, rel=2e-5)


# States


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weights_only", [False, True])
def test_a_state_in_another_type_is_continued_soundly(dtype, weights_only):
    model, optimizer, constraint, _ = attached()
    train(model, optimizer, steps=3)
    file = io.BytesIO()
    torch.save(constraint.state_dict(), file)
    file.seek(0)
    other = Model().to(dtype)
    resumed = SpectralConstraint(other, delta=0.5)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(torch.load(file, weights_only=weights_only))
    optimizer = sgd(other)
    resumed.attach(optimizer)
    assert train(other, optimizer) <= BOUND * (1 + (1e-6 if dtype == torch.float64 else 1e-2))


def test_a_state_of_other_weights_is_not_trusted():
    model, optimizer, constraint, _ = attached()
    train(model, optimizer, steps=3)
    other = Model()
    resumed = SpectralConstraint(other, delta=0.5)
    resumed.load_state_dict(constraint.state_dict())
    with torch.no_grad():
        other.rnn.weight_hh_l0 *= 30
    resumed.project_()
    assert holds(sigma(other))


DAMAGES = {
    "no dictionary": lambda state: [state],
    "empty": lambda state: {},
    "a matrix missing": lambda state: {
        "rnn.weight_hh_l0": {"projection": state["rnn.weight_hh_l0"]["projection"]}
    },
    "a list of numbers": lambda state: {"rnn.weight_hh_l0": [1.0]},
    "a text for a matrix": lambda state: {"rnn.weight_hh_l0": state["rnn.weight_hh_l0"] | {"last": "abc"}},
    "no projection": lambda state: {"rnn.weight_hh_l0": state["rnn.weight_hh_l0"] | {"projection": {}}},
    "projection None": lambda state: {"rnn.weight_hh_l0": state["rnn.weight_hh_l0"] | {"projection": None}},
    **{
        f"{key} {value!r}": lambda state, key=key, value=value: {
            "rnn.weight_hh_l0": state["rnn.weight_hh_l0"]
            | {"projection": state["rnn.weight_hh_l0"]["projection"] | {key: value}}
        }
        for key, value in [
            ("memories", []),
            ("memories", None),
            ("max_sv", []),
            ("batched", {}),
            ("batched", 3),
        ]
    },
    **{
        f"memory {key} {value!r}": lambda state, key=key, value=value: {
            "rnn.weight_hh_l0": state["rnn.weight_hh_l0"]
            | {
                "projection": state["rnn.weight_hh_l0"]["projection"]
                | {"memories": [state["rnn.weight_hh_l0"]["projection"]["memories"][0] | {key: value}]}
            }
        }
        for key, value in [
            ("basis", torch.ones(2, 3)),
            ("basis", "abc"),
            ("known", [1]),
            ("known", ["a", "b"]),
            ("bounds", [1.0]),
            ("bounds", ["a", 1.0]),
            ("counts", [1, 2]),
        ]
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_in_a_line_and_nothing_loaded(damage):
    model, optimizer, constraint, _ = attached()
    train(model, optimizer, steps=3)
    before = constraint.state_dict()
    with pytest.raises(InputError, match=r"^(rnn\.weight_hh_l0: |state for .* does not fit)[^\n]*$"):
        constraint.load_state_dict(DAMAGES[damage](copy.deepcopy(before)))
    after = constraint.state_dict()
    assert torch.equal(after["rnn.weight_hh_l0"]["last"], before["rnn.weight_hh_l0"]["last"])
    assert holds(train(model, optimizer))
