"""Matrix products in float32 on CPUs through oneDNN.

`torch.mm` goes through MKL, which uses AVX-512 on Intel's processors only; oneDNN uses it everywhere (measured on an
AMD EPYC core: 218 against 95 GFLOP/s). A recurrent network also multiplies by the same matrix many times, and oneDNN
can pack that matrix once. All other products, and all products in a PyTorch without these operators, go through
`torch.mm`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Below this many multiplications the call itself (about 13 us) costs more than oneDNN gains.
WORTH_ONEDNN = 1_000_000
# Packing a matrix costs as much as several products.
WORTH_PACKING = 8


def _available() -> bool:
    return bool(torch._C._get_mkldnn_enabled()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn(a: Tensor, b: Tensor) -> bool:
    """Whether a [M, K] @ b [K, N] goes to oneDNN."""
    return (
        a.device.type == "cpu"
        and a.dtype == b.dtype == torch.float32
        and a.dim() == b.dim() == 2
        and a.shape[0] * a.shape[1] * b.shape[1] >= WORTH_ONEDNN
        and _available()
    )


def matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [..., M, K] @ b [..., K, N] (+ bias [..., N]) with equal leading axes, at most one; not differentiable.

    A bias of a higher type is added in that type.
    """
    lower = a.device.type == "cpu" and a.dtype in (torch.bfloat16, torch.float16)
    if a.dim() == 3 and len(a) and (lower or _onednn(a[0], b[0])):  # each has the bits it would have alone
        biases = [None] * len(a) if bias is None else bias
        return torch.stack([matmul(*tensors) for tensors in zip(a, b, biases, strict=True)])
    if _onednn(a, b) and (bias is None or bias.dtype == b.dtype):
        if not (b.is_contiguous() or b.mT.is_contiguous()):
            b = b.contiguous()  # oneDNN accepts other strides, but is 500 times slower with them
        result: Tensor = torch.ops.mkldnn._linear_pointwise(a.contiguous(), b.mT, bias, "none", [], "")
        return result
    product = torch.matmul(a, b)
    if bias is None:
        return product
    bias = bias.unsqueeze(-2)
    return product.add_(bias) if product.dtype == bias.dtype else product + bias


def adder(b: Tensor, rows: int, times: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (a, c) -> c + a @ b, to be called `times` times; it may overwrite c.

    Args:
        b: [..., K, N].
        rows: M of a [..., M, K] and c [..., M, N], both contiguous in the last two axes.
        times: how many products there will be.
    """
    if b.dim() == 3:
        return lambda a, c: c.baddbmm_(a, b)
    if times >= WORTH_PACKING and _onednn(b.new_empty(rows, b.shape[0]), b):
        packed = torch.ops.mkldnn._reorder_linear_weight(b.mT, rows)
        binary = torch.ops.mkldnn._linear_pointwise.binary
        return lambda a, c: binary(a, c, packed, None, "add")
    return lambda a, c: c.addmm_(a, b)


def multiplier(b: Tensor, rows: int, times: int) -> Callable[[Tensor], Tensor]:
    """A function a -> a @ b, to be called `times` times; arguments as in `adder`."""
    if b.dim() == 2 and times >= WORTH_PACKING and _onednn(b.new_empty(rows, b.shape[0]), b):
        packed = torch.ops.mkldnn._reorder_linear_weight(b.mT, rows)
        unary = torch.ops.mkldnn._linear_pointwise
        return lambda a: unary(a, packed, None, "none", [], "")
    return lambda a: torch.matmul(a, b)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return matmul(x, weight.mT, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_bias = grad.sum(-2) if ctx.needs_input_grad[2] else None
        grad = grad.to(x.dtype)
        grad_x = matmul(grad, weight) if ctx.needs_input_grad[0] else None
        return grad_x, matmul(grad.mT, x) if ctx.needs_input_grad[1] else None, grad_bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] @ weight [N, K] transposed + bias [N], as `torch.nn.functional.linear`; once differentiable.

    With replicas, x is [R, ..., K], weight [R, N, K] and bias [R, N]. A bias of a higher type is added in that type.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    flat = x.flatten(weight.dim() - 2, -2)
    if weight.dim() == 3 and len(weight) == 1:  # views: joining again would copy
        flat, weight, bias = flat.squeeze(0), weight.squeeze(0), None if bias is None else bias.squeeze(0)
    result: Tensor = _Linear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], weight.shape[-2])
