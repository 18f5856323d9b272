# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why it exploded
#
# A GRU explodes within a minute on a CPU. A flight recorder keeps what went before, an autopsy says where the gradient
# grew and through which path, and four remedies are tried: first on the recorded batch, then on the whole training.
#
# Needs torch and spectralgru; the two curves are drawn where matplotlib is installed.

# %%
import math
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from spectralgru import ExplosionRecorder, SpectralConstraint, autopsy
from spectralgru.diagnosis.recording import Recording

torch.set_num_threads(1)

# %% [markdown]
# ## A network and a task
#
# The flip-flop: now and then a pulse of +1 or -1 comes in; the output is the last pulse. Somebody wanted a long memory
# and made the candidate's recurrent weights orthogonal with gain 3.


# %%
class FlipFlop(nn.Module):
    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.gru = nn.GRU(2, hidden, bias=False)
        self.answer = nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.gru.weight_hh_l0[2 * hidden :], gain=3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.gru(x)[0]).squeeze(-1)


def sequences(length: int = 60, batch: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [T, B, 2] (pulses, noise) and the last pulse [T, B]."""
    pulses = (torch.rand(length, batch) < 0.05).float() * torch.randn(length, batch).sign()
    last, targets = torch.zeros(batch), []
    for pulse in pulses:
        last = torch.where(pulse != 0, pulse, last)
        targets.append(last)
    return torch.stack([pulses, 0.1 * torch.randn(length, batch)], -1), torch.stack(targets)


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean()


# %% [markdown]
# ## A plain loop, and two lines
#
# Adam at 0.03. Two lines attach the recorder; `note` tells it the loss and the targets, which the model does not see.


# %%
def train(
    steps: int,
    *,
    rate: float = 0.03,
    clip: float = math.inf,
    delta: float | None = None,
    gates: float | None = None,
    folder: str | None = None,
) -> tuple[list[float], list[float], list[Path]]:
    """Losses and gradient norms of each step until one is no number, and the recordings."""
    torch.manual_seed(0)
    model = FlipFlop()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    recorder = None
    if folder is not None:
        recorder = ExplosionRecorder(model, folder)
        recorder.attach(optimizer)
    if delta is not None:
        SpectralConstraint(model, delta, gates=gates).attach(optimizer)
    losses, norms = [], []
    for _ in range(steps):
        x, target = sequences()
        loss = loss_of(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), clip)))
        losses.append(loss.item())
        if recorder is not None:
            recorder.note(loss, target=target)
        optimizer.step()
        if not math.isfinite(norms[-1]):
            break
    return losses, norms, recorder.files if recorder is not None else []


warnings.filterwarnings("ignore", message="ExplosionRecorder")  # it says where the file is
folder = tempfile.mkdtemp()
losses, norms, files = train(60, folder=folder)
print("gradients:", *(f"{norm:.2g}" for norm in norms))
print("recorded:", files[0].name)

# %% [markdown]
# ## Autopsy
#
# From the file alone: the recurrent module is repeated cell by cell with the gradients that came back to it.

# %%
found = autopsy(None, files[0])
print(found)

# %% [markdown]
# The gradient grew a thousandfold on its way back through time. Cut the candidate, and the growth is gone; cut a gate,
# and most of it stays. The candidate's sigma_1 is above 2, the spectral radius at the origin above 1: the case that the
# constraint is made for. On the same batch the constraint removes the growth.
#
# With the model and its loss the remedies have losses, too:

# %%
again = autopsy(FlipFlop(), files[0], loss_of)
for row in again.remedies:
    print(f"{row['remedy']:32} norm {row['norm']:8.3g}, loss after a step {row['loss after']:.3g}")

# %% [markdown]
# ## The remedies, over a whole training

# %%
REMEDIES = {
    "nothing": {},
    "constraint, delta 0.2": {"delta": 0.2},
    "constraint and gates at most 2": {"delta": 0.2, "gates": 2.0},
    "clipped at 1": {"clip": 1.0},
    "a tenth of the rate": {"rate": 0.003},
}
curves = {name: train(100, **settings) for name, settings in REMEDIES.items()}
print(f"{'remedy':32} {'steps':>6} {'error':>9} {'largest gradient after step 20':>31}")
for name, (losses, norms, _) in curves.items():
    error = sum(losses[-20:]) / len(losses[-20:])
    largest = max(math.inf if math.isnan(norm) else norm for norm in norms[20:])
    print(f"{name:32} {len(losses):>6} {error:>9.3g} {largest:>31.3g}")

# %% [markdown]
# ## The curves

# %%
ring = Recording.read(files[0]).ring
try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    print("step, norm:", [(step["step"], f"{step['norm']:.3g}") for step in ring[-8:]])
else:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    left.semilogy([step["step"] for step in ring], [step["norm"] for step in ring])
    left.set(title="the recorded steps", xlabel="step", ylabel="gradient norm")
    for name, (losses, _, _) in curves.items():
        right.semilogy(losses, label=name, linewidth=0.8)
    right.set(title="with each remedy", xlabel="step", ylabel="loss")
    right.legend(fontsize=6)
    found.figure(Path(folder) / "autopsy.svg")
    plt.show()
