"""The sweeps of one network on a CPU in float32, in C++.

In PyTorch, half of a GRU step at H = 200 is spent between operations, not in them. Without a C++ compiler, `sweeps`
does the same work.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from spectralgru.errors import InputError
from spectralgru.recurrent.compiled import library
from spectralgru.recurrent.sweeps import Activations, Gradients, Inputs, begin, weight_gradients
from spectralgru.recurrent.threads import pool

# Less is not worth waking another for.
MULTIPLICATIONS_A_THREAD = 300_000


def usable(weight_hh: Tensor) -> bool:
    """Whether `forward` and `backward` take such a matrix: float32 on a CPU, without an axis of replicas.

    Not under `torch.compile`, which generates its own code from the operations it knows.
    """
    suitable = weight_hh.device.type == "cpu" and weight_hh.dtype == torch.float32 and weight_hh.dim() == 2
    return suitable and not torch.compiler.is_compiling() and library() is not None


def forward(inputs: Inputs, before: bool) -> Activations:
    """Like `sweeps.forward`, for tensors [T, B, H]."""
    saved = begin(inputs)
    torch.ops.spectralgru.sweep_forward(
        inputs.weight_hh,
        inputs.keep,
        saved.gates,
        saved.candidates,
        saved.states,
        saved.recurrent,
        before=before,
    )
    return saved


def backward(
    grad: Tensor, inputs: Inputs, activations: Activations, before: bool, needs_x: bool
) -> Gradients:
    """Like `sweeps.backward`, for tensors [T, B, H]."""
    states, gates, candidates, recurrent = activations
    weight_hh, keep = inputs.weight_hh, inputs.keep
    previous = states[:-1] if keep is None else states[:-1] * keep
    d_gates, d_n, d_q = (torch.empty_like(t) for t in (gates, candidates, candidates))
    dh = torch.empty_like(states[0])
    given = (grad.contiguous(), previous, gates, candidates, recurrent)
    torch.ops.spectralgru.sweep_backward(weight_hh, keep, *given, d_gates, d_n, d_q, dh, before=before)
    return weight_gradients(inputs, previous, recurrent, d_gates, d_n, d_q, dh, before, needs_x)


def _sweep_forward(weight_hh: Tensor, keep: Tensor | None, *tensors: Tensor, before: bool) -> None:
    _check(weight_hh, keep, tensors[1], tensors, "TBG TBH SBH TBH")
    hidden = weight_hh.shape[-1]
    packed = [_packed(weight_hh[: 2 * hidden].mT), _packed(weight_hh[2 * hidden :].mT)]
    _sweep("forward", before, packed, keep, *tensors, torch.empty_like(tensors[2][0]))


def _sweep_backward(weight_hh: Tensor, keep: Tensor | None, *tensors: Tensor, before: bool) -> None:
    _check(weight_hh, keep, tensors[0], tensors, "TBH TBH TBG TBH TBH TBG TBH TBH BH")
    hidden = weight_hh.shape[-1]
    packed = [_packed(weight_hh[: 2 * hidden]), _packed(weight_hh[2 * hidden :])]
    _sweep("backward", before, packed, keep, *tensors)


def _check(
    weight_hh: Tensor, keep: Tensor | None, like: Tensor, tensors: tuple[Tensor, ...], shapes: str
) -> None:
    """Refuse tensors that the library, which sees addresses only, would misread or write past the end of."""
    if like.dim() != 3:
        raise InputError(f"a sweep was given a tensor of shape {list(like.shape)}; expected [T, B, H]")
    steps, batch, hidden = like.shape
    sizes = {"T": steps, "S": steps + 1, "B": batch, "H": hidden, "G": 2 * hidden}
    given = [
        (t, tuple(sizes[axis] for axis in shape)) for t, shape in zip(tensors, shapes.split(), strict=True)
    ]
    given.append((weight_hh, (3 * hidden, hidden)))
    if keep is not None:
        given.append((keep, (steps, batch, 1)))
    for tensor, shape in given:
        dtype = torch.bool if tensor is keep else torch.float32
        laid_out = tensor.is_contiguous() or tensor is weight_hh or tensor is keep
        stored = tensor.data_ptr() or not tensor.numel()  # false where a wrapper has freed the storage
        if tensor.dtype != dtype or tensor.shape != shape or not (laid_out and stored):
            raise InputError(
                f"a sweep was given {tensor.dtype} {list(tensor.shape)} with strides {list(tensor.stride())}; expected"
                f" contiguous {dtype} {list(shape)} (was it changed between forward and backward?)"
            )


# Registered with PyTorch, so that whatever records operations sees them. All tensors but `weight_hh` are contiguous.
OPERATORS: Any = torch.library.Library("spectralgru", "DEF")  # type: ignore[no-untyped-call]
OPERATORS.define(
    "sweep_forward(Tensor weight_hh, Tensor? keep, Tensor(a!) gates, Tensor(b!) candidates, Tensor(c!) states, "
    "Tensor(d!) recurrent, *, bool before) -> ()"
)
OPERATORS.define(
    "sweep_backward(Tensor weight_hh, Tensor? keep, Tensor grad, Tensor previous, Tensor gates, Tensor candidates, "
    "Tensor recurrent, Tensor(a!) d_gates, Tensor(b!) d_n, Tensor(c!) d_q, Tensor(d!) dh, *, bool before) -> ()"
)
OPERATORS.impl("sweep_forward", _sweep_forward, "CPU")
OPERATORS.impl("sweep_backward", _sweep_backward, "CPU")


def _packed(b: Tensor) -> Tensor:
    """b [K, N] in the layout that the products read: panels of columns, one after another."""
    loaded = library()
    assert loaded is not None
    (depth, width), panel = b.shape, loaded.panel_width()
    packed = b.new_empty(-(-width // panel) * panel * depth)
    numbers = (ctypes.c_long(n) for n in (depth, width, *b.stride()))
    loaded.pack(pointer(b), *numbers, pointer(packed))
    return packed


def _sweep(name: str, before: bool, packed: list[Tensor], keep: Tensor | None, *tensors: Tensor) -> None:
    """Call `name` of the library for all lanes, divided among PyTorch's threads."""
    steps, batch = tensors[0].shape[:2]
    hidden = tensors[1].shape[-1]
    if keep is not None:
        keep = keep.contiguous()
    pointers = [pointer(t) for t in (*packed, keep, *tensors)]
    threads = pool()
    parts = max(1, min(threads.threads, batch, batch * hidden**2 // MULTIPLICATIONS_A_THREAD))
    numbers = (ctypes.c_long(n) for n in (parts, steps, batch, hidden))
    getattr(library(), name)(threads, *numbers, ctypes.c_int(before), *pointers)


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Address of the tensor's numbers."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
