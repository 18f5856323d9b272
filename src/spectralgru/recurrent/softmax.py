"""Softmax over bfloat16 logits on a CPU, in C++ (`softmax.cpp`): two passes over them, where PyTorch takes ten."""

import ctypes

import torch
from torch import Tensor

from spectralgru.recurrent.compiled import library
from spectralgru.recurrent.native import OPERATORS, pointer


def usable(logits: Tensor) -> bool:
    """Whether `sums` and `gradient_` take such logits."""
    return logits.device.type == "cpu" and logits.dtype == torch.bfloat16 and library() is not None


def sums(logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Of x = logits [N, V] + bias [V], the largest [N] and the sum of e^(x - largest) [N]."""
    largest, total = bias.new_empty(len(logits)), bias.new_empty(len(logits))
    torch.ops.spectralgru.softmax_sums(logits, bias, largest, total)
    return largest, total


def gradient_(logits: Tensor, bias: Tensor, log_total: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Turn the logits into the gradient of the sum of `scale` [N] times the losses [N]; returns the bias's [V].

    Args:
        logits: contiguous [N, V].
        bias: [V].
        log_total: logarithm [N] of the sum of e^(logits + bias).
        targets: ids [N].
        scale: [N].
    """
    d_bias = torch.empty_like(bias)
    torch.ops.spectralgru.softmax_gradient(
        targets.contiguous(), scale.contiguous(), log_total, bias, logits, d_bias
    )
    return d_bias


def _softmax_sums(logits: Tensor, *tensors: Tensor) -> None:
    _call("softmax_sums", logits, logits, *tensors)


def _softmax_gradient(*tensors: Tensor) -> None:
    _call("softmax_gradient", tensors[4], *tensors)


def _call(name: str, logits: Tensor, *tensors: Tensor) -> None:
    """In this thread: between two products, another loses to PyTorch's own, which spin while they wait."""
    getattr(library(), name)(*(ctypes.c_long(n) for n in logits.shape), *(pointer(t) for t in tensors))


OPERATORS.define("softmax_sums(Tensor logits, Tensor bias, Tensor(a!) largest, Tensor(b!) total) -> ()")
OPERATORS.define(
    "softmax_gradient(Tensor targets, Tensor scale, Tensor log_total, Tensor bias, Tensor(a!) logits, "
    "Tensor(b!) d_bias) -> ()"
)
OPERATORS.impl("softmax_sums", _softmax_sums, "CPU")
OPERATORS.impl("softmax_gradient", _softmax_gradient, "CPU")
