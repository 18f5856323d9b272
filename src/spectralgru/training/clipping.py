"""Clipping of the global gradient norm (Pascanu et al. 2013), one norm and one threshold a replica."""

import functools
from collections.abc import Iterable

import torch
from torch import Tensor


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Euclidean norm [R] over all gradients [R, ...] of each replica."""
    squares = (torch.linalg.vector_norm(g.flatten(1), dim=1).square() for g in gradients)
    # One after another: the order in which `Tensor.sum` adds depends on R, and a replica's bits must not depend on it.
    total: Tensor = functools.reduce(torch.add, squares)
    return total.sqrt()


def clip_factor(norm: Tensor, threshold: Tensor) -> Tensor:
    """Factor [R] that brings a gradient of norm `norm` [R] to at most `threshold` [R] (infinity: never clipped)."""
    return (threshold / norm).clamp(max=1.0)
