"""One GRU layer, forward and backward, against torch.nn.GRU(bias=False) and the rate of one large product.

GFLOP/s count the eighteen H x H products that a step of a sequence costs, six forward and twelve backward; `of GEMM`
is their rate over that of [700, H] @ [H, 3H] by this package's product, in the same run. `products` is the time of
those products by themselves, in their shapes and number: B rows at a time is all that a recurrence allows.
"""

from statistics import median

import torch
from benchmarks.measuring import interleaved, spread, write
from torch import Tensor

from spectralgru.recurrent.gru import gru_layer
from spectralgru.recurrent.products import matmul, multiplier

SHAPES = [  # replicas, steps, lanes, hidden size
    (1, 35, 20, 650),
    (1, 35, 20, 200),
    (1, 200, 16, 200),
    (3, 35, 20, 128),
    (10, 35, 20, 200),
    (20, 35, 20, 650),
]


def case(device: str, replicas: int, steps: int, lanes: int, hidden: int) -> dict[str, object]:
    """One row of the table."""
    x = torch.randn(replicas, steps, lanes, hidden, device=device, requires_grad=True)
    grad = torch.randn_like(x)
    theirs = [torch.nn.GRU(hidden, hidden, bias=False, device=device) for _ in range(replicas)]
    pairs = zip(*(gru.parameters() for gru in theirs), strict=True)
    weights = [torch.stack(w).detach().requires_grad_() for w in pairs]

    def torch_gru() -> None:
        for i, gru in enumerate(theirs):
            torch.autograd.grad(gru(x[i])[0], [x, *gru.parameters()], grad[i])

    def ours(reset: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(gru_layer(x, None, *weights, reset=reset)[0], [x, *weights], grad)

    def products() -> None:
        flat = x.detach().flatten(-3, -2)
        wide = flat.repeat_interleave(3, -1)
        for i in range(replicas):
            w_ih, w_hh = (w[i].detach() for w in weights)
            matmul(flat[i], w_ih.mT), matmul(wide[i], w_ih)
            matmul(wide[i].mT, flat[i]), matmul(wide[i].mT, flat[i])
            h, rz = flat[i, :lanes], wide[i, :lanes, : 2 * hidden].contiguous()
            gates, candidate = w_hh[: 2 * hidden], w_hh[2 * hidden :]
            forward = multiplier(gates.mT, lanes, steps), multiplier(candidate.mT, lanes, steps)
            backward = multiplier(candidate, lanes, steps), multiplier(gates, lanes, steps)
            for _ in range(steps):
                forward[0](h), forward[1](h)
                backward[0](h), backward[1](rz)

    a, b = torch.randn(700, hidden, device=device), torch.randn(hidden, 3 * hidden, device=device)
    samples = interleaved(
        {
            "torch": torch_gru,
            "before": lambda: ours("before"),
            "after": lambda: ours("after"),
            "products": products,
            "gemm": lambda: matmul(a, b),
        }
    )
    ms = {name: 1e3 * median(values) for name, values in samples.items()}
    rate = 2 * 18 * replicas * steps * lanes * hidden**2 / ms["before"] / 1e6
    gemm = 2 * 700 * 3 * hidden**2 / ms["gemm"] / 1e6
    return {
        "R": replicas,
        "T": steps,
        "B": lanes,
        "H": hidden,
        "nn.GRU ms": ms["torch"],
        "before ms": ms["before"],
        "after ms": ms["after"],
        "products ms": ms["products"],
        "speed-up before": ms["torch"] / ms["before"],
        "speed-up after": ms["torch"] / ms["after"],
        "spread": max(spread(values) for values in samples.values()),
        "GFLOP/s": rate,
        "of GEMM": rate / gemm,
        "of products": ms["products"] / ms["before"],
    }


def run(device: str) -> None:
    """Measure, print and write."""
    torch.manual_seed(0)
    shapes = SHAPES if device.startswith("cuda") else SHAPES[:-1]  # the last one is a GPU's
    rows = [case(device, *shape) for shape in shapes]
    names = ["{R}x({T},{B},{H})".format(**row) for row in rows]

    def draw(axes) -> None:
        for offset, variant in ((-0.2, "before"), (0.2, "after")):
            values = [row[f"speed-up {variant}"] for row in rows]
            axes.bar([i + offset for i in range(len(rows))], values, 0.4, label=f'reset="{variant}"')
        axes.axhline(1, color="black", linewidth=1)
        axes.set_xticks(range(len(rows)), names, fontsize=7)
        axes.set_ylabel("speed-up over torch.nn.GRU")

    write(
        "gru_layer", "GRU layer, forward and backward, against torch.nn.GRU(bias=False)", rows, draw, device
    )
