"""Searches and decompositions of several matrices on a CPU at once: in C++, each in one thread, whatever their number.

So its bits depend neither on PyTorch's threads, as those of its QR and eigenvectors do, nor on other matrices.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectralgru.projection import subspace
from spectralgru.projection.clip import Clipped, Whole
from spectralgru.projection.lapack import lapack
from spectralgru.projection.subspace import Above, Found, Search
from spectralgru.recurrent.compiled import library
from spectralgru.recurrent.threads import pool

# Larger matrices are left to PyTorch and all its threads.
LARGEST = 1024


class _Constants(ctypes.Structure):
    """As in `subspace.cpp`."""

    _fields_ = (
        *((name, ctypes.c_double) for name in ("coupling", "error", "narrowest", "strongest", "tracking")),
        *((name, ctypes.c_double) for name in ("lowest_edge", "again", "furthest")),
        ("degrees", ctypes.c_int * len(subspace.DEGREES)),
        *((name, ctypes.c_int) for name in ("tracking_degree", "tracking_sweeps")),
    )


_CONSTANTS = _Constants(
    *(subspace.COUPLING, subspace.ERROR, subspace.NARROWEST, subspace.STRONGEST, subspace.TRACKING),
    *(subspace.LOWEST_EDGE, subspace.AGAIN, subspace.FURTHEST),
    subspace.DEGREES,
    *(subspace.TRACKING_DEGREE, subspace.TRACKING_SWEEPS),
)


class _Above(ctypes.Structure):
    _fields_ = (("number", ctypes.c_long), ("level", ctypes.c_double))


class _Task(ctypes.Structure):
    """As in `subspace.cpp`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "vectors", "values", "clipped")),
        *((name, ctypes.c_long) for name in ("wide", "n", "k")),
        *((name, ctypes.c_double) for name in ("bound", "norm", "edge")),
        ("known", _Above),
        *((name, ctypes.c_double) for name in ("largest", "sigma")),
        *((name, ctypes.c_long) for name in ("saturated", "done")),
    )


def usable(asked: Search | Whole) -> bool:
    """Whether `computed` takes it; not under `torch.compile`, which would look inside."""
    weight = asked.weight
    types = (torch.float32,) if isinstance(asked, Search) else (torch.float32, torch.float64)
    return (
        weight.device.type == "cpu"
        and weight.dtype in types
        and weight.is_contiguous()
        and len(weight) <= LARGEST
        and not torch.compiler.is_compiling()
        and lapack() is not None
        and library() is not None
    )


def computed(asked: Sequence[Search | Whole]) -> list[Any]:
    """What `answers.by_torch` would return for each; None also if nothing was found, as after an overflow."""
    loaded = library()
    assert loaded is not None
    tensors = [_tensors(one) for one in asked]
    tasks = (_Task * len(asked))(*(_task(*one) for one in zip(asked, tensors, strict=True)))
    loaded.project(pool(), lapack(), ctypes.byref(_CONSTANTS), ctypes.c_long(len(asked)), tasks)
    return [_result(*one) if one[1].done else None for one in zip(asked, tasks, tensors, strict=True)]


def _tensors(asked: Search | Whole) -> dict[str, Tensor]:
    """What the C++ writes to; vectors are rows."""
    weight = asked.weight
    if isinstance(asked, Whole):
        vectors, clipped = weight.new_empty(2, *weight.shape)
        return {"vectors": vectors, "values": weight.new_empty(len(weight)), "clipped": clipped}
    basis = {"vectors": asked.basis.clone(memory_format=torch.contiguous_format)}
    return basis if asked.bound is None else basis | {"clipped": weight.new_empty(weight.shape)}


def _task(asked: Search | Whole, tensors: dict[str, Tensor]) -> _Task:
    weight, vectors = asked.weight, tensors["vectors"]
    task = _Task(weight=weight.data_ptr(), n=len(weight), k=len(vectors))
    for name, tensor in tensors.items():
        setattr(task, name, tensor.data_ptr())
    task.wide, task.bound = weight.dtype == torch.float64, asked.bound or 0.0
    if isinstance(asked, Search):
        task.norm, task.edge = asked.norm, asked.edge
        task.known = _Above(-1, 0.0) if asked.known is None else _Above(*asked.known)
    return task


def _result(asked: Search | Whole, task: _Task, tensors: dict[str, Tensor]) -> Found | Clipped:
    vectors, clipped = tensors["vectors"], tensors.get("clipped")
    if isinstance(asked, Whole):
        assert clipped is not None
        return Clipped(clipped[None], tensors["values"].flip(0)[None], vectors.flip(0).mT[None])
    if clipped is None:
        return Found(vectors, task.sigma)
    known, weight = Above(task.known.number, task.known.level), clipped if task.saturated else None
    return Found(vectors, task.sigma, weight, task.saturated, task.edge, known, task.largest)
