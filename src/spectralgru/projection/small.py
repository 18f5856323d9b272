# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""What the projection does to many small matrices [N, 32, 32] on a GPU, a whole chain of steps in one Triton kernel.

A program keeps one matrix in its registers. float64; the products are those of the tensor cores.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectralgru.recurrent.fused import device_of

SIZE = 32


def inverse_factor(gram: Tensor, shift: float) -> Tensor:
    """See `by_products.inverse_factor`."""
    gram, inverse = gram.contiguous(), torch.empty_like(gram, memory_format=torch.contiguous_format)
    with device_of(gram):
        factorise[(len(gram),)](gram, inverse, shift, SIZE=SIZE, num_warps=2)
    return inverse


def unitary(x: Tensor, scalings: tuple[float, ...]) -> Tensor:
    """See `by_products.unitary`."""
    x = x.clone(memory_format=torch.contiguous_format)
    with device_of(x):
        iterate[(len(x),)](x, _on(scalings, x.device), len(scalings), SIZE=SIZE, num_warps=4)
    return x


@cache  # a copy from the host cannot be captured
def _on(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=device)


@triton.jit
def factorise(gram, inverse, shift, SIZE: tl.constexpr):
    """inverse = R^-1 with R upper triangular, R^T R = gram + shift trace(gram): by elimination, row by row."""
    start = tl.program_id(0).to(tl.int64) * SIZE * SIZE
    place = tl.arange(0, SIZE)
    row, column = place[:, None], place[None, :]
    upper = tl.load(gram + start + row * SIZE + column)
    upper += tl.where(row == column, shift * tl.sum(tl.sum(tl.where(row == column, upper, 0.0), 1), 0), 0.0)
    lower = tl.where(row == column, upper * 0 + 1, 0.0)
    for j in range(SIZE):
        pivots = tl.sum(tl.where(row == j, upper, 0.0), 0)
        factor = tl.sum(tl.where(column == j, upper, 0.0), 1) / tl.sum(tl.where(place == j, pivots, 0.0), 0)
        factor = tl.where(place > j, factor, 0.0)[:, None]
        upper -= factor * pivots[None, :]
        lower -= factor * tl.sum(tl.where(row == j, lower, 0.0), 0)[None, :]
    diagonal = tl.sum(tl.where(row == column, upper, 0.0), 1)
    tl.store(inverse + start + column * SIZE + row, lower / tl.sqrt(diagonal)[:, None])


@triton.jit
def iterate(x, scalings, count, SIZE: tl.constexpr):
    """x = 3/2 a x - 1/2 a^3 x x^T x for every a of `scalings`."""
    start = tl.program_id(0).to(tl.int64) * SIZE * SIZE
    place = tl.arange(0, SIZE)
    at = x + start + place[:, None] * SIZE + place[None, :]
    value = tl.load(at)
    for i in range(count):
        a = tl.load(scalings + i)
        value = 1.5 * a * value - 0.5 * a * a * a * tl.dot(value, tl.dot(tl.trans(value), value))
    tl.store(at, value)
