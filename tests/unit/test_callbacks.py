"""The callbacks in Lightning and Transformers themselves, and accelerate's own checkpoints."""

import copy

import pytest
import torch
from torch import nn

from spectralgru import SpectralConstraint
from spectralgru.errors import InputError

lightning = pytest.importorskip("pytorch_lightning")
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")
from spectralgru.callbacks.lightning import SpectralConstraintCallback as ForLightning  # noqa: E402
from spectralgru.callbacks.transformers import SpectralConstraintCallback as ForTransformers  # noqa: E402

BOUND = 1.5
RATE = 0.3
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def batches(count):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 10, 4, generator=generator)
    return [{"x": x[i], "labels": x[i].sum()} for i in range(count)]


class Net(nn.Module):
    """Batch first, as Transformers wants it: returns loss and prediction."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 16, bias=False, batch_first=True)
        self.out = nn.Linear(16, 1)

    def forward(self, x, labels):
        prediction = self.out(self.rnn(x)[0][:, -1]).squeeze(-1)
        return {"loss": (prediction - labels).square().mean(), "logits": prediction}


def sigma(net):
    return torch.linalg.svdvals(net.rnn.weight_hh_l0.detach()[32:].double())[0].item()


class Module(lightning.LightningModule):
    def __init__(self, rate=RATE, manual=False):
        super().__init__()
        self.net, self.rate, self.seen = Net(), rate, []
        self.automatic_optimization = not manual

    def training_step(self, batch, index):
        if self.seen is not None:
            self.seen.append(sigma(self.net))
        loss = self.net(**batch)["loss"]
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.5)


class Numbers(
    lightning.pytorch.loggers.Logger if hasattr(lightning, "pytorch") else lightning.loggers.Logger
):
    def __init__(self):
        super().__init__()
        self.rows = []

    name, version = "numbers", "0"

    def log_hyperparams(self, *_):
        pass

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))


def fit(module, *callbacks, path, epochs=2, resume=None, **options):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=path,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False, "enable_checkpointing": False} | options,
    )
    loader = torch.utils.data.DataLoader(batches(48), batch_size=8)
    trainer.fit(module, loader, ckpt_path=resume)
    return trainer


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
def test_lightning_keeps_the_bound_after_every_step(options, tmp_path):
    options = dict(options)
    free = Module(manual=(manual := options.pop("manual", False)))
    held = copy.deepcopy(free)
    fit(held, ForLightning(delta=0.5), path=tmp_path, **options)
    assert max(*held.seen[1:], sigma(held.net)) <= BOUND * (1 + 1e-6)
    fit(free, path=tmp_path, **options)
    assert not max(free.seen) <= BOUND * 1.05, "the constraint had nothing to do"
    assert held.automatic_optimization != manual


class Leaving(lightning.Callback):
    """Each rank leaves what it has seen, and its weights."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        weight = pl_module.net.rnn.weight_hh_l0.detach()
        torch.save((pl_module.seen, weight), self.folder / f"{trainer.global_rank}.pt")


def test_lightning_keeps_the_bound_on_every_rank(tmp_path):
    held = Module(rate=4 * RATE)  # without the constraint, 241 after five steps
    ranks = {"strategy": "ddp_fork", "devices": 2}
    fit(held, ForLightning(delta=0.5), Leaving(tmp_path), path=tmp_path, **ranks)
    (seen, weight), (_, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(seen) == 6
    assert 0.9 * BOUND < max(seen[1:]) <= BOUND * (1 + 1e-6)
    assert torch.equal(weight, other)


def test_lightning_logs_and_detaches(tmp_path):
    module, logger = Module(), Numbers()
    callback = ForLightning(delta=0.5, gates=1.2)
    trainer = fit(module, callback, path=tmp_path, logger=logger, log_every_n_steps=3)
    rows = [(step, row) for step, row in logger.rows if "spectral/net.rnn.weight_hh_l0/radius" in row]
    assert [step for step, _ in rows] == [3, 6, 9, 12]
    last = rows[-1][1]
    assert last["spectral/net.rnn.weight_hh_l0/sigma_1/candidate"] == pytest.approx(sigma(module.net))
    assert last["spectral/net.rnn.weight_hh_l0/sigma_1/reset_gate"] <= 1.2 * (1 + 1e-6)
    assert last["spectral/net.rnn.weight_hh_l0/radius"] < 1
    assert last["spectral/growth_bound"] == pytest.approx(callback.constraint.growth_bound())
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
    assert not module.net.rnn._forward_pre_hooks


def test_lightning_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    start = Module()
    whole, half = copy.deepcopy(start), copy.deepcopy(start)
    fit(whole, ForLightning(delta=0.5), path=tmp_path, epochs=4)
    callback = ForLightning(delta=0.5)
    fit(half, callback, path=tmp_path, epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    again, callback = copy.deepcopy(start), ForLightning(delta=0.5)
    fit(again, callback, path=tmp_path, epochs=4, resume=tmp_path / "half.ckpt")
    assert callback._loaded  # the state was there
    assert torch.equal(again.net.rnn.weight_hh_l0, whole.net.rnn.weight_hh_l0)


@pytest.mark.parametrize("kind", ["EMA", "SWA"])
def test_averages_of_lightning_hold_too(kind, tmp_path):
    """At the end of a fit they are the weights."""
    from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging

    reached = []
    for callbacks in ([ForLightning(delta=0.5)], []):
        torch.manual_seed(0)
        module = Module()
        ema = kind == "EMA"
        average = EMAWeightAveraging(decay=0.5) if ema else StochasticWeightAveraging(RATE, swa_epoch_start=1)
        fit(module, average, *callbacks, path=tmp_path, epochs=4)
        reached.append(sigma(module.net))
    assert reached[0] <= BOUND * (1 + 1e-6) < reached[1]


def test_lightning_says_what_cannot_be_attached(tmp_path):
    class Bare:
        """A strategy's optimiser, as DeepSpeed's: its step runs no hooks."""

    module = Module()
    callback = ForLightning()
    with pytest.raises(InputError, match=r"Bare is not a torch\.optim\.Optimizer whose step"):
        callback.begin(module, [Bare()])
    with pytest.raises(InputError, match="contains none of"):
        callback.begin(nn.Linear(2, 2), [])


class Steps(transformers.TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, *_, model, **__):
        self.seen.append(sigma(model))


def train(net, *callbacks, path, epochs=2, resume=None, rate=RATE, **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(path),
        num_train_epochs=epochs,
        per_device_train_batch_size=8,
        learning_rate=rate,
        lr_scheduler_type="constant",
        optim="sgd",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **{"save_strategy": "no", "logging_strategy": "no", "max_grad_norm": 0} | options,
    )
    trainer = transformers.Trainer(net, arguments, train_dataset=batches(48), callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str)
def test_transformers_keeps_the_bound_after_every_step(options, tmp_path):
    free = Net()
    held = copy.deepcopy(free)
    seen, unheld = Steps(), Steps()
    train(held, ForTransformers(delta=0.5), seen, path=tmp_path, **options)
    assert max(seen.seen) <= BOUND * (1 + 1e-6)
    train(free, unheld, path=tmp_path, **options)
    assert not max(unheld.seen) <= BOUND * 1.05


def test_transformers_logs_and_detaches(tmp_path):
    net, callback = Net(), ForTransformers(delta=0.5)
    trainer = train(net, callback, path=tmp_path, logging_strategy="steps", logging_steps=4)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert rows[-1]["spectral/rnn.weight_hh_l0/sigma_1/candidate"] == pytest.approx(sigma(net))
    assert rows[-1]["spectral/rnn.weight_hh_l0/radius"] < 1
    assert not trainer.optimizer.optimizer._optimizer_step_post_hooks


def test_transformers_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    start = Net()
    whole, again = copy.deepcopy(start), copy.deepcopy(start)
    train(
        whole,
        ForTransformers(delta=0.5),
        path=tmp_path,
        epochs=4,
        rate=0.1,
        save_strategy="steps",
        save_steps=6,
    )
    callback = ForTransformers(delta=0.5)
    train(again, callback, path=tmp_path, epochs=4, rate=0.1, resume=str(tmp_path / "checkpoint-12"))
    assert callback._loaded
    assert torch.equal(again.rnn.weight_hh_l0, whole.rnn.weight_hh_l0)


def test_transformers_says_that_a_checkpoint_has_no_state_of_the_constraint(tmp_path):
    train(Net(), path=tmp_path, save_strategy="steps", save_steps=6)
    net = Net()
    with pytest.warns(
        UserWarning, match=r"checkpoint-6.spectral_constraint.pt: no such file; the constraint still holds"
    ):
        train(net, ForTransformers(delta=0.5), path=tmp_path, epochs=2, resume=str(tmp_path / "checkpoint-6"))
    assert sigma(net) <= BOUND * (1 + 1e-6)


def test_accelerate_saves_and_loads_the_constraint(tmp_path):
    def steps(accelerator, model, optimizer, count):
        for batch in batches(count):
            accelerator.backward(model(batch["x"][None], batch["labels"][None])["loss"])
            optimizer.step()
            optimizer.zero_grad()

    accelerator = accelerate.Accelerator(cpu=True)
    net = Net()
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
    assert sigma(net) <= BOUND * (1 + 1e-6)
