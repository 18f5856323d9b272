"""The precision of matrix products in training. Everything else, including evaluation, is float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spectralgru.errors import InputError
from spectralgru.recurrent.fused import AMPERE
from spectralgru.training.settings import Precision


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise InputError if the device would only emulate this precision."""
    if precision == "float32":
        return
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= AMPERE:
            return
        lacks = f"{torch.cuda.get_device_name(device)} has neither TF32 nor bfloat16"
    elif precision == "tf32":
        lacks = "a CPU has no TF32"
    elif torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return
    else:
        lacks = "this processor has no bfloat16 products (AVX512-BF16 or AMX)"
    raise InputError(f"training.precision is {precision}: {lacks}; use float32")


def product_dtype(precision: Precision) -> torch.dtype:
    """Type of the factors of the products outside the recurrence."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def tf32(precision: Precision) -> Iterator[None]:
    """Inside the block a GPU's float32 products round their factors to TF32, if that is the precision."""
    if precision != "tf32":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
