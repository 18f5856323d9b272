"""What the library's two lines cost in somebody else's loop: a torch.nn.GRU, a linear output, SGD with momentum.

One training step (forward, backward, update) plain, with a SpectralConstraint at delta 0.2, with an ExplosionRecorder
and with both. Each has a model of its own; they take turns. Targets: constraint at most +5 %, recorder at most +3 %.
"""

from collections.abc import Callable
from statistics import median
from tempfile import mkdtemp

import torch
from benchmarks.measuring import interleaved, spread, write
from torch import nn

from spectralgru import ExplosionRecorder, SpectralConstraint

SIZES = (256, 512)
STEPS, LANES = 35, 20  # of a batch, as the paper trains words


def training(hidden: int, device: str, *, constrained: bool, recorded: bool) -> Callable[[], None]:
    """A function that takes one training step."""
    torch.manual_seed(0)
    gru = nn.GRU(hidden, hidden, device=device)
    model = nn.ModuleDict({"gru": gru, "out": nn.Linear(hidden, hidden, device=device)})
    model.forward = lambda x: model["out"](model["gru"](x)[0])
    x = torch.randn(STEPS, LANES, hidden, device=device)
    target = x.roll(1, 0)  # to be remembered for one step
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if constrained:
        SpectralConstraint(model, delta=0.2).attach(optimizer)
    if recorded:
        ExplosionRecorder(model, mkdtemp()).attach(optimizer)

    def step() -> None:
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()

    return step


def case(hidden: int, device: str, repeats: int = 41) -> dict[str, object]:
    """One row of the table."""
    chosen = {
        "plain": (False, False),
        "constraint": (True, False),
        "recorder": (False, True),
        "both": (True, True),
    }
    steps = {
        name: training(hidden, device, constrained=constrained, recorded=recorded)
        for name, (constrained, recorded) in chosen.items()
    }
    samples = interleaved(steps, repeats, seconds=0.2)
    row: dict[str, object] = {"H": hidden, "T": STEPS, "B": LANES, "plain ms": 1e3 * median(samples["plain"])}
    for name in list(chosen)[1:]:
        # Against the plain step of the same turn: what else the machine does falls on both.
        ratios = [a / b - 1 for a, b in zip(samples[name], samples["plain"], strict=True)]
        row[f"{name} %"] = 100 * median(ratios)
    return {**row, "spread": max(spread(values) for values in samples.values())}


def run(device: str) -> None:
    """Measure, print and write."""
    rows = [case(hidden, device) for hidden in SIZES]
    names = ("constraint %", "recorder %", "both %")

    def draw(axes) -> None:
        for i, name in enumerate(names):
            axes.bar(
                [j + 0.25 * (i - 1) for j in range(len(rows))], [row[name] for row in rows], 0.25, label=name
            )
        axes.set_xticks(range(len(rows)), [f"{row['H']} units" for row in rows])
        axes.set_ylabel("longer step, %")

    write("library", "A step of a torch.nn.GRU with the library's two lines", rows, draw, device)
