"""Dropout masks from a seed and a count alone: Philox 4x32-10 (Salmon et al. 2011), the same on every device."""

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectralgru.recurrent import fused
from spectralgru.recurrent.compiled import library
from spectralgru.recurrent.native import OPERATORS, pointer
from spectralgru.recurrent.threads import pool

LOW_WORD = 0xFFFFFFFF


def dropout_masks(seeds: Tensor, drawn: Tensor, shape: tuple[int, ...], share: float) -> Tensor:
    """Factors [R, *shape]: 1 / `share` with probability `share` (to 24 bits), otherwise 0; increments `drawn` [1].

    A replica's factors are a function of its seed [R] (int64), the number of such tensors drawn before and the position
    in the tensor: never of the other replicas, the device, the processor, threads or the compiler.
    """
    masks = torch.empty(len(seeds), *shape, device=seeds.device)
    limit, factor = round(share * 2**24), 1 / share
    if seeds.is_cuda and fused.AVAILABLE:
        from spectralgru.recurrent import dropout_kernels

        dropout_kernels.fill(masks, seeds, drawn, limit, factor)
    elif not seeds.is_cuda and library() is not None:
        torch.ops.spectralgru.dropout(masks, seeds.contiguous(), drawn, limit, factor)
    else:
        for mask, seed in zip(masks, seeds.tolist(), strict=True):
            kept = _numbers(seed, int(drawn), mask.numel()) < limit
            mask.copy_(torch.from_numpy(kept).view_as(mask)).mul_(factor)
    drawn += 1
    return masks


def _numbers(seed: int, step: int, length: int) -> Any:
    """Numbers of 24 bits [length], as `dropout.cpp` draws them."""
    words: Any = np.zeros((4, -(-length // 4)), np.uint64)
    a, b, c, d = words
    a += np.arange(len(a), dtype=np.uint64)
    b += step & LOW_WORD
    low, high = seed & LOW_WORD, seed >> 32 & LOW_WORD
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b = right >> 32 ^ b ^ low, right & LOW_WORD
        c, d = left >> 32 ^ d ^ high, left & LOW_WORD
        low, high = low + 0x9E3779B9 & LOW_WORD, high + 0xBB67AE85 & LOW_WORD
    return np.concatenate([a, b, c, d])[:length] >> 8


def _dropout(masks: Tensor, seeds: Tensor, drawn: Tensor, limit: int, factor: float) -> None:
    loaded, sizes = library(), (ctypes.c_long(n) for n in (len(masks), masks[0].numel()))
    assert loaded is not None
    numbers = ctypes.c_uint32(int(drawn)), limit, ctypes.c_float(factor)
    loaded.dropout(pool(), *sizes, pointer(seeds), *numbers, pointer(masks))


OPERATORS.define("dropout(Tensor(a!) masks, Tensor seeds, Tensor drawn, int limit, float factor) -> ()")
OPERATORS.impl("dropout", _dropout, "CPU")
