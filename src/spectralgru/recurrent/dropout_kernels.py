# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Dropout masks on a GPU, in Triton."""

import triton
import triton.language as tl
from torch import Tensor

from spectralgru.recurrent.fused import device_of

BLOCK = 256  # groups of four numbers that a program draws


def fill(masks: Tensor, seeds: Tensor, drawn: Tensor, limit: int, factor: float) -> None:
    """Fill `masks` [R, ...], see `recurrent.dropout`."""
    length = masks[0].numel()
    grid = len(seeds), triton.cdiv(length, 4 * BLOCK)
    with device_of(seeds):
        draw[grid](masks, seeds, drawn, length, limit, factor, BLOCK=BLOCK)


@triton.jit
def draw(masks, seeds, drawn, length, limit, factor, BLOCK: tl.constexpr):
    """As `dropout.cpp`, masks [R, length]."""
    replica = tl.program_id(0).to(tl.int64)
    groups = (length + 3) // 4
    group = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    zero = group * 0
    step = zero + tl.load(drawn).to(tl.int32)
    words = tl.philox(tl.load(seeds + replica), group, step, zero, zero)
    for j in tl.static_range(4):
        at = j * groups + group
        number = (words[j].to(tl.uint32, bitcast=True) >> 8).to(tl.int32)
        inside = (group < groups) & (at < length)
        tl.store(masks + replica * length + at, tl.where(number < limit, factor, 0.0), mask=inside)
