"""Softmax over logits in two passes, where PyTorch makes ten: in C++ (`softmax.cpp`) for bfloat16 on a CPU, in Triton
(`softmax_kernels.py`) on a GPU.
"""

import ctypes

import torch
from torch import Tensor

from spectralgru.recurrent import fused
from spectralgru.recurrent.compiled import library
from spectralgru.recurrent.native import OPERATORS, pointer
from spectralgru.recurrent.threads import pool


def usable(logits: Tensor) -> bool:
    """Whether `log_totals` and `gradient_` can take such logits."""
    if logits.is_cuda:
        return fused.AVAILABLE and logits.dtype in (torch.float32, torch.bfloat16)
    return logits.device.type == "cpu" and logits.dtype == torch.bfloat16 and library() is not None


def log_totals(logits: Tensor, bias: Tensor) -> Tensor:
    """log sum e^x [R, N] of each row of x = logits [R, N, V] + bias [R, V]."""
    if logits.is_cuda:
        from spectralgru.recurrent import softmax_kernels

        return softmax_kernels.log_totals(logits, bias)
    each = []
    for one, its_bias in zip(logits, bias, strict=True):
        largest, total = bias.new_empty(len(one)), bias.new_empty(len(one))
        torch.ops.spectralgru.softmax_sums(one, its_bias, largest, total)
        each.append(total.log_().add_(largest))
    return torch.stack(each)


def gradient_(logits: Tensor, bias: Tensor, log_total: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Overwrite the logits with the gradient of sum(scale * losses), and return the gradient of the bias [R, V].

    Args:
        logits: contiguous [R, N, V].
        bias: [R, V].
        log_total: the result of `log_totals`, [R, N].
        targets: ids [R, N].
        scale: [R, N].
    """
    if logits.is_cuda:
        from spectralgru.recurrent import softmax_kernels

        return softmax_kernels.gradient_(logits, bias, log_total, targets, scale)
    d_bias = torch.empty_like(bias)
    each = (targets.contiguous(), scale.contiguous(), log_total, bias, logits, d_bias)
    for tensors in zip(*each, strict=True):
        torch.ops.spectralgru.softmax_gradient(*tensors)
    return d_bias


def _softmax_sums(logits: Tensor, *tensors: Tensor) -> None:
    _call("softmax_sums", logits, logits, *tensors)


def _softmax_gradient(*tensors: Tensor) -> None:
    _call("softmax_gradient", tensors[4], *tensors)


def _call(name: str, logits: Tensor, *tensors: Tensor) -> None:
    getattr(library(), name)(
        pool(), *(ctypes.c_long(n) for n in logits.shape), *(pointer(t) for t in tensors)
    )


OPERATORS.define("softmax_sums(Tensor logits, Tensor bias, Tensor(a!) largest, Tensor(b!) total) -> ()")
OPERATORS.define(
    "softmax_gradient(Tensor targets, Tensor scale, Tensor log_total, Tensor bias, Tensor(a!) logits, "
    "Tensor(b!) d_bias) -> ()"
)
OPERATORS.impl("softmax_sums", _softmax_sums, "CPU")
OPERATORS.impl("softmax_gradient", _softmax_gradient, "CPU")
