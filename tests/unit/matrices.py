"""How matrices change in training, for the tests of the projection."""

import torch


def updates(generator, n, rank, size):
    """Low-rank changes like gradients', plus a little of everything."""
    low = torch.randn(n, rank, generator=generator) @ torch.randn(rank, n, generator=generator)
    full = torch.randn(n, n, generator=generator)
    return size * (low / low.norm() + 0.1 * full / full.norm())
