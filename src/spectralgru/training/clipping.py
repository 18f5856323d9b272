"""Clipping of the global gradient norm (Pascanu et al. 2013), with one norm and one threshold per replica."""

import functools
from collections.abc import Iterable

import torch
from torch import Tensor


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Euclidean norm [R] over all gradients [R, ...] of each replica."""
    squares = (torch.linalg.vector_norm(g.flatten(1), dim=1).square() for g in gradients)
    # Added one by one: `Tensor.sum` adds in an order that depends on R, on which a replica's bits must not depend.
    total: Tensor = functools.reduce(torch.add, squares)
    return total.sqrt()


def clip_factor(norm: Tensor, threshold: Tensor) -> Tensor:
    """Factor [R] that clips a gradient of norm `norm` [R] to `threshold` [R] (infinity: never)."""
    return (threshold / norm).clamp(max=1.0)
