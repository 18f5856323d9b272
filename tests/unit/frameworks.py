"""A network, and how Lightning, Transformers and accelerate train it; importing them takes seconds."""

import accelerate
import pytorch_lightning as lightning
import torch
import transformers
from torch import nn

from spectralgru.callbacks.lightning import SpectralConstraintCallback as ForLightning
from spectralgru.callbacks.transformers import SpectralConstraintCallback as ForTransformers

__all__ = ["ForLightning", "ForTransformers", "accelerate"]
RATE = 0.3


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


class Leaving(lightning.Callback):
    """Each rank leaves what it has seen, and its weights."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        weight = pl_module.net.rnn.weight_hh_l0.detach()
        torch.save((pl_module.seen, weight), self.folder / f"{trainer.global_rank}.pt")


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
