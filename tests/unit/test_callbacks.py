"""The callbacks in Lightning and Transformers themselves, and accelerate's own checkpoints."""

import copy

import pytest
import torch
from torch import nn

from spectralgru import SpectralConstraint
from spectralgru.errors import InputError

BOUND = 1.5
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def kit():
    """Imported by the worker that runs these tests: all collect them."""
    for name in ("pytorch_lightning", "transformers", "accelerate"):
        pytest.importorskip(name)
    import frameworks

    return frameworks


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"precision": "bf16-mixed"},
        {"gradient_clip_val": 1.0},
        {"manual": True},
    ],
    ids=str,
)
def test_lightning_keeps_the_bound_after_every_step(kit, options, tmp_path):
    options = dict(options)
    free = kit.Module(manual=(manual := options.pop("manual", False)))
    held = copy.deepcopy(free)
    kit.fit(held, kit.ForLightning(delta=0.5), path=tmp_path, **options)
    assert max(*held.seen[1:], kit.sigma(held.net)) <= BOUND * (1 + 1e-6)
    kit.fit(free, path=tmp_path, **options)
    assert not max(free.seen) <= BOUND * 1.05, "the constraint had nothing to do"
    assert held.automatic_optimization != manual


def test_lightning_keeps_the_bound_on_every_rank(kit, tmp_path):
    held = kit.Module(rate=4 * kit.RATE)  # without the constraint, 241 after five steps
    ranks = {"strategy": "ddp_fork", "devices": 2}
    kit.fit(held, kit.ForLightning(delta=0.5), kit.Leaving(tmp_path), path=tmp_path, **ranks)
    (seen, weight), (_, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(seen) == 6
    assert 0.9 * BOUND < max(seen[1:]) <= BOUND * (1 + 1e-6)
    assert torch.equal(weight, other)


def test_lightning_logs_and_detaches(kit, tmp_path):
    module, logger = kit.Module(), kit.Numbers()
    callback = kit.ForLightning(delta=0.5, gates=1.2)
    trainer = kit.fit(module, callback, path=tmp_path, logger=logger, log_every_n_steps=3)
    rows = [(step, row) for step, row in logger.rows if "spectral/net.rnn.weight_hh_l0/radius" in row]
    assert [step for step, _ in rows] == [3, 6, 9, 12]
    last = rows[-1][1]
    assert last["spectral/net.rnn.weight_hh_l0/sigma_1/candidate"] == pytest.approx(kit.sigma(module.net))
    assert last["spectral/net.rnn.weight_hh_l0/sigma_1/reset_gate"] <= 1.2 * (1 + 1e-6)
    assert last["spectral/net.rnn.weight_hh_l0/radius"] < 1
    assert last["spectral/growth_bound"] == pytest.approx(callback.constraint.growth_bound())
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
    assert not module.net.rnn._forward_pre_hooks


def test_lightning_goes_on_from_a_checkpoint_bit_for_bit(kit, tmp_path):
    start = kit.Module()
    whole, half = copy.deepcopy(start), copy.deepcopy(start)
    kit.fit(whole, kit.ForLightning(delta=0.5), path=tmp_path, epochs=4)
    callback = kit.ForLightning(delta=0.5)
    kit.fit(half, callback, path=tmp_path, epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    again, callback = copy.deepcopy(start), kit.ForLightning(delta=0.5)
    kit.fit(again, callback, path=tmp_path, epochs=4, resume=tmp_path / "half.ckpt")
    assert callback._loaded  # the state was there
    assert torch.equal(again.net.rnn.weight_hh_l0, whole.net.rnn.weight_hh_l0)


@pytest.mark.parametrize("kind", ["EMA", "SWA"])
def test_averages_of_lightning_hold_too(kit, kind, tmp_path):
    """At the end of a fit they are the weights."""
    from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging

    reached = []
    for callbacks in ([kit.ForLightning(delta=0.5)], []):
        torch.manual_seed(0)
        module = kit.Module()
        ema = kind == "EMA"
        average = (
            EMAWeightAveraging(decay=0.5) if ema else StochasticWeightAveraging(kit.RATE, swa_epoch_start=1)
        )
        kit.fit(module, average, *callbacks, path=tmp_path, epochs=4)
        reached.append(kit.sigma(module.net))
    assert reached[0] <= BOUND * (1 + 1e-6) < reached[1]


def test_lightning_says_what_cannot_be_attached(kit, tmp_path):
    class Bare:
        """A strategy's optimiser, as DeepSpeed's: its step runs no hooks."""

    module = kit.Module()
    callback = kit.ForLightning()
    with pytest.raises(InputError, match=r"Bare is not a torch\.optim\.Optimizer whose step"):
        callback.begin(module, [Bare()])
    with pytest.raises(InputError, match="contains none of"):
        callback.begin(nn.Linear(2, 2), [])


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str)
def test_transformers_keeps_the_bound_after_every_step(kit, options, tmp_path):
    free = kit.Net()
    held = copy.deepcopy(free)
    seen, unheld = kit.Steps(), kit.Steps()
    kit.train(held, kit.ForTransformers(delta=0.5), seen, path=tmp_path, **options)
    assert max(seen.seen) <= BOUND * (1 + 1e-6)
    kit.train(free, unheld, path=tmp_path, **options)
    assert not max(unheld.seen) <= BOUND * 1.05


def test_transformers_logs_and_detaches(kit, tmp_path):
    net, callback = kit.Net(), kit.ForTransformers(delta=0.5)
    trainer = kit.train(net, callback, path=tmp_path, logging_strategy="steps", logging_steps=4)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert rows[-1]["spectral/rnn.weight_hh_l0/sigma_1/candidate"] == pytest.approx(kit.sigma(net))
    assert rows[-1]["spectral/rnn.weight_hh_l0/radius"] < 1
    assert not trainer.optimizer.optimizer._optimizer_step_post_hooks


def test_transformers_goes_on_from_a_checkpoint_bit_for_bit(kit, tmp_path):
    start = kit.Net()
    whole, again = copy.deepcopy(start), copy.deepcopy(start)
    kit.train(
        whole,
        kit.ForTransformers(delta=0.5),
        path=tmp_path,
        epochs=4,
        rate=0.1,
        save_strategy="steps",
        save_steps=6,
    )
    callback = kit.ForTransformers(delta=0.5)
    kit.train(again, callback, path=tmp_path, epochs=4, rate=0.1, resume=str(tmp_path / "checkpoint-12"))
    assert callback._loaded
    assert torch.equal(again.rnn.weight_hh_l0, whole.rnn.weight_hh_l0)


def test_transformers_says_that_a_checkpoint_has_no_state_of_the_constraint(kit, tmp_path):
    kit.train(kit.Net(), path=tmp_path, save_strategy="steps", save_steps=6)
    net = kit.Net()
    with pytest.warns(
        UserWarning, match=r"checkpoint-6.spectral_constraint.pt: no such file; the constraint still holds"
    ):
        kit.train(
            net,
            kit.ForTransformers(delta=0.5),
            path=tmp_path,
            epochs=2,
            resume=str(tmp_path / "checkpoint-6"),
        )
    assert kit.sigma(net) <= BOUND * (1 + 1e-6)


def test_accelerate_saves_and_loads_the_constraint(kit, tmp_path):
    def steps(accelerator, model, optimizer, count):
        for batch in kit.batches(count):
            accelerator.backward(model(batch["x"][None], batch["labels"][None])["loss"])
            optimizer.step()
            optimizer.zero_grad()

    accelerator = kit.accelerate.Accelerator(cpu=True)
    net = kit.Net()
    model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.3))
    constraint = SpectralConstraint(model, delta=0.5)
    constraint.attach(optimizer)
    accelerator.register_for_checkpointing(constraint)
    steps(accelerator, model, optimizer, 4)
    accelerator.save_state(tmp_path / "state")
    steps(accelerator, model, optimizer, 4)
    whole = copy.deepcopy(net.rnn.weight_hh_l0)
    accelerator.load_state(tmp_path / "state")
    steps(accelerator, model, optimizer, 4)
    assert torch.equal(net.rnn.weight_hh_l0, whole)
    assert kit.sigma(net) <= BOUND * (1 + 1e-6)
