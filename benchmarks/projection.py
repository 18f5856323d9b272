"""The projection against naive decompositions, over the size of the matrix and the share of values at the bound.

A matrix with that share of its singular values at the bound gets small low-rank updates, like a gradient's. After
each it is projected by `SpectralProjection` (which remembers), by its whole-matrix forms, and by `torch.linalg.svd`.
"""

import itertools
from statistics import median

import torch
from benchmarks.measuring import interleaved, spread, write

from spectralgru.projection.tracked import SpectralProjection

SIZES = (50, 100, 200, 400, 650)
SHARES = (0.0, 0.02, 0.05, 0.2, 1.0)
BOUND, UPDATE, RANK = 1.8, 0.1, 4


class Moving:
    """A matrix under way: every call updates it and projects it by one method."""

    def __init__(self, n: int, share: float, method: str, device: str) -> None:
        self.generator = torch.Generator(device).manual_seed(0)
        self.shape = (n, RANK)
        u, v = (torch.linalg.qr(self._draw(n, n)).Q for _ in range(2))
        at = max(int(share > 0), round(share * n))
        s = torch.cat([torch.full((at,), 1.0), torch.linspace(0.93, 0.05, n - at)]).to(device) * BOUND
        self.weight = ((u * s) @ v.T)[None].contiguous()
        self.naive = method == "torch.linalg.svd"
        self.projection = SpectralProjection(
            torch.tensor([BOUND]), "auto" if self.naive or method == "ours" else method
        )

    def _draw(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.generator.device)

    def __call__(self) -> None:
        update = self._draw(*self.shape) @ self._draw(*self.shape[::-1])
        update *= UPDATE / update.norm()
        self.weight += update - 0.01 * self.weight  # the decay keeps the rest of the spectrum where it is
        if self.naive:
            try:
                u, s, vh = torch.linalg.svd(self.weight)
            except torch.linalg.LinAlgError:  # float32 fails on some matrices with many values at the bound
                u, s, vh = (t.float() for t in torch.linalg.svd(self.weight.double()))
            self.weight = (u * s.clamp_max(BOUND).unsqueeze(-2)) @ vh
        else:
            self.projection.project_(
                self.weight, torch.tensor([UPDATE + 0.02 * BOUND * self.shape[0] ** 0.5])
            )


METHODS = ("ours", "eigh", "torch.linalg.svd")


def run(device: str) -> None:
    """Measure, print and write."""
    rows = []
    for n, share in itertools.product(SIZES, SHARES):
        samples = interleaved({m: Moving(n, share, m, device) for m in METHODS}, seconds=0.15)
        ms = {name: 1e3 * median(values) for name, values in samples.items()}
        rows.append(
            {"n": n, "share at the bound": share}
            | {f"{name} ms": value for name, value in ms.items()}
            | {
                "eigh / ours": ms["eigh"] / ms["ours"],
                "SVD / ours": ms["torch.linalg.svd"] / ms["ours"],
                "spread": max(spread(values) for values in samples.values()),
            }
        )

    def draw(axes) -> None:
        for share in SHARES:
            values = [row["SVD / ours"] for row in rows if row["share at the bound"] == share]
            axes.plot(SIZES, values, marker="o", label=f"{share:.0%} at the bound")
        axes.axhline(1, color="black", linewidth=1)
        axes.set_xlabel("n")
        axes.set_ylabel("time of torch.linalg.svd over ours")

    write("projection", "The projection after an update, against torch.linalg.svd", rows, draw, device)
