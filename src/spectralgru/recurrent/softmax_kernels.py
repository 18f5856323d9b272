# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Softmax over rows of logits [R, N, V] on a GPU, in Triton: the forward pass reads them once, the backward pass reads
and writes them once.

The gradient is not computed in the forward pass, where its factor is still unknown: with a separate pass for the sum of
the bias's gradient, that would move as many bytes. Logits are float32 or bfloat16; arithmetic is in float32.
"""

import triton
import triton.language as tl
from torch import Tensor

from spectralgru.recurrent.fused import device_of

# Logits of a row that a program reads at a time; rows and columns that it turns into gradients.
BLOCK, ROWS, COLUMNS = 4096, 32, 128


def log_totals(logits: Tensor, bias: Tensor) -> Tensor:
    """See `softmax.log_totals`."""
    (runs, rows, width), totals = logits.shape, bias.new_empty(logits.shape[:2])
    block = min(BLOCK, triton.next_power_of_2(width))
    with device_of(logits):
        sum_row[(runs * rows,)](logits, bias, totals, rows, width, BLOCK=block, num_warps=8)
    return totals


def gradient_(logits: Tensor, bias: Tensor, log_total: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """See `softmax.gradient_`."""
    runs, rows, width = logits.shape
    groups = triton.cdiv(rows, ROWS)
    sums = bias.new_empty(runs, groups, width)
    with device_of(logits):
        differentiate[(runs * groups, triton.cdiv(width, COLUMNS))](
            *(logits, bias, log_total, targets.contiguous(), scale.contiguous(), sums, rows, width, groups),
            **{"ROWS": ROWS, "BLOCK": COLUMNS, "num_warps": 8},
        )
    return sums.sum(1)


@triton.jit
def sum_row(logits, bias, totals, rows, width, BLOCK: tl.constexpr):
    """totals [R, N] = log sum e^(logits + bias)."""
    row = tl.program_id(0).to(tl.int64)
    own = bias + row // rows * width
    largest, total = -3e38, 0.0  # finite: a block of -inf leaves no NaN
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        mask = column < width
        x = tl.load(logits + row * width + column, mask=mask, other=-float("inf")).to(tl.float32)
        x += tl.load(own + column, mask=mask, other=0.0)
        higher = tl.maximum(largest, tl.max(x, 0))
        total = total * tl.exp(largest - higher) + tl.sum(tl.exp(x - higher), 0)
        largest = higher
    tl.store(totals + row, largest + tl.log(total))


@triton.jit
def differentiate(
    logits, bias, totals, targets, scale, sums, rows, width, groups, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """logits = scale * (softmax - 1 at the target); sums [R, groups, V]: of these gradients over ROWS rows each."""
    part = tl.program_id(0).to(tl.int64)
    row = part % groups * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    within, mask = row < rows, column < width
    both = within[:, None] & mask[None, :]
    at = part // groups * rows + row
    place = logits + at[:, None] * width + column[None, :]
    x = tl.load(place, mask=both, other=-float("inf")).to(tl.float32)
    x += tl.load(bias + part // groups * width + column, mask=mask, other=0.0)[None, :]
    d = tl.exp(x - tl.load(totals + at, mask=within, other=0.0)[:, None])
    target = tl.load(targets + at, mask=within, other=-1)
    d = tl.where(column[None, :] == target[:, None], d - 1, d)
    d *= tl.load(scale + at, mask=within, other=0.0)[:, None]
    tl.store(place, d, mask=both)
    tl.store(sums + part * width + column, tl.sum(d, 0), mask=mask)
