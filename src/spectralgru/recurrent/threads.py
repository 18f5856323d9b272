"""The threads of PyTorch's own OpenMP, for the C++ of this folder.

Between two of its products they wait in a loop, on the cores that other threads would need. So the library is given
`GOMP_parallel`, which GNU's OpenMP has and LLVM's and Intel's imitate, of the OpenMP that PyTorch uses.
"""

import ctypes
import os
from functools import cache

import torch

_LOADED_IN = os.getpid()


class Pool(ctypes.Structure):
    """As in `parallel.h`."""

    _fields_ = (("parallel", ctypes.c_void_p), ("threads", ctypes.c_uint))


def pool() -> Pool:
    """As many threads as PyTorch may use; one where there is no `GOMP_parallel`, or its threads may be missing.

    They are after a fork, and GNU's OpenMP would wait for them for ever.
    """
    address = _address() if os.getpid() == _LOADED_IN else None
    return Pool(address, torch.get_num_threads() if address else 1)


@cache
def _address() -> int | None:
    """Looked up as the linker did for PyTorch: what the whole process shares comes first (LD_PRELOAD)."""
    if torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        for library in (None, torch._C.__file__):
            try:
                return ctypes.cast(ctypes.CDLL(library).GOMP_parallel, ctypes.c_void_p).value
            except (AttributeError, OSError, TypeError):  # TypeError: Windows knows no such whole
                continue
    return None
