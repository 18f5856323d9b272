"""A small training that goes well until something is planted in it."""

import warnings

import torch
from torch import nn

from spectralgru.diagnosis.recorder import ExplosionRecorder

HIDDEN, CALM = 16, 25


class Net(nn.Module):
    def __init__(self, kind, **settings):
        super().__init__()
        self.rnn = getattr(nn, kind)(4, HIDDEN, **settings)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


def batch():
    x = torch.randn(20, 8, 4)
    return x, 0.1 * x.cumsum(0).sum(-1, keepdim=True)


def trained(folder, kind, plant=None, steps=CALM + 3, model=None, **settings):
    """Model, optimiser and recorder after the steps, or after the step in which the recorder wrote a file."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = model or Net(kind)
    groups = [{"params": model.rnn.parameters()}, {"params": model.out.parameters(), "lr": 0.05}]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    recorder = ExplosionRecorder(model, folder, **settings)
    recorder.attach(optimizer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ExplosionRecorder: .* why: spectralgru autopsy")
        for step in range(steps):
            x, y = batch()
            if step == CALM and plant is not None:
                with torch.no_grad():
                    x, y = plant(model, optimizer, x, y) or (x, y)
            loss = (model(x) - y).square().mean()
            recorder.note(loss, target=y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if recorder.files:
                break
    return model, optimizer, recorder


def scaled(block, factor):
    """Multiplies one block of the recurrent weight."""

    def plant(model, *_):
        model.rnn.weight_hh_l0[block * HIDDEN : (block + 1) * HIDDEN] *= factor

    return plant


def too_high_a_rate(_, optimizer, *__):
    optimizer.param_groups[1]["lr"] = 5.0


def bad_targets(model, optimizer, x, y):
    return x, 1000 * y


def bad_inputs(model, optimizer, x, y):
    return 1e4 * x, 1e4 * y
