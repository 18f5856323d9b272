"""Losses of words and notes, summed over a batch for each run."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from spectralgru.recurrent import softmax
from spectralgru.recurrent.products import linear


def cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of softmax(x [R, N, H] @ weight [R, V, H] transposed + bias [R, V]) against `targets` [N].

    Summed over N where `counted` [R, N] is 1: [R]. If the factors are bfloat16, so are the logits; sums and
    exponentials are float32.
    """
    index = targets.expand_as(counted).unsqueeze(-1)
    total: Tensor
    if softmax.usable(weight):
        total = _FusedCrossEntropy.apply(linear(x, weight), bias, index, counted)  # type: ignore[no-untyped-call]
    else:
        total = _CrossEntropy.apply(linear(x, weight, bias), index, counted)  # type: ignore[no-untyped-call]
    return total


def binary_cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Binary cross-entropy of logits [R, N, V] against `targets` [R or 1, N, V], summed over V and counted N: [R]."""
    total: Tensor = _BinaryCrossEntropy.apply(logits, targets, counted)  # type: ignore[no-untyped-call]
    return total


def _apart(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """On a CPU, tensors [R, ...] split into [1, ...]; elsewhere unchanged.

    On a CPU the last few elements of a tensor are rounded differently from the rest, but the bits of a replica must not
    depend on its position in a tensor.
    """
    size = 1 if tensors[0].device.type == "cpu" else len(tensors[0])
    return zip(*(torch.split(t, size) for t in tensors), strict=True)


class _BinaryCrossEntropy(torch.autograd.Function):
    """Of functions that round a number alike wherever it lies in a tensor or in a thread's part of one.

    On a CPU, `sigmoid` and `logsigmoid` are none.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        small = logits.abs().neg_().exp_()
        ctx.save_for_backward(logits, small, targets, weights)
        losses = small.log1p().add_(logits.clamp_min(0)).sub_(logits * targets)
        return (losses.sum(-1) * weights).sum(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        logits, small, targets, weights = ctx.saved_tensors
        scale = (weights * gradient.unsqueeze(1)).unsqueeze(-1)
        sigmoid = torch.where(logits > 0, 1.0, small).div_(small + 1)
        return sigmoid.sub_(targets).mul_(scale), None, None


class _CrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy [R, N, V] -> [R], in place: the logits become probabilities, then gradients."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        losses, totals = [], []
        for one, at, counted in _apart(logits, index, weights):
            largest = one.amax(-1, keepdim=True)
            picked = one.gather(-1, at) - largest
            total = one.sub_(largest).exp_().sum(-1, keepdim=True)
            losses.append(((total.log() - picked).squeeze(-1) * counted).sum(1))
            totals.append(total)
        ctx.save_for_backward(logits, torch.cat(totals), index, weights)
        return torch.cat(losses)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        exponentials, total, index, weights = ctx.saved_tensors
        scale = (weights * gradient.unsqueeze(1)).unsqueeze(-1)
        probabilities = exponentials.mul_(scale / total)
        probabilities.scatter_add_(-1, index, -scale)
        return probabilities, None, None


class _FusedCrossEntropy(torch.autograd.Function):
    """The same for logits apart from their bias [R, V]; the backward pass turns them into gradients (`softmax`)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        log_totals = softmax.log_totals(logits, bias)
        picked = logits.gather(-1, index).squeeze(-1).float() + bias.gather(-1, index.squeeze(-1))
        ctx.save_for_backward(logits, bias, log_totals, index, weights)
        return ((log_totals - picked) * weights).sum(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        logits, bias, log_totals, index, weights = ctx.saved_tensors
        scale = weights * gradient.unsqueeze(1)
        d_bias = softmax.gradient_(logits, bias, log_totals, index.squeeze(-1), scale)
        return logits, d_bias, None, None
