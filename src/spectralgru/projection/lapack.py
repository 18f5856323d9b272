"""Intel's MKL, the BLAS and LAPACK of most PyTorch builds for x86, for the C++ of this folder."""

import ctypes
from functools import cache
from pathlib import Path

import torch

# In the order of `lapack.h`.
ROUTINES = (
    *("sgemm_", "dgemm_", "ssyevd_", "dsyevd_", "sgeqrf_", "sorgqr_", "spotrf_"),
    "MKL_Set_Num_Threads_Local",
)


@cache
def lapack() -> ctypes.Array[ctypes.c_void_p] | None:
    """Addresses of ROUTINES as the C++ takes them; None in a build without them."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*")):
        try:
            library = ctypes.CDLL(str(path))
            addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in ROUTINES]
        except (AttributeError, OSError):
            continue
        return (ctypes.c_void_p * len(ROUTINES))(*addresses)
    return None
