"""Weights as bytes of a safetensors file."""

import json
import struct
from collections.abc import Mapping

import numpy as np


def safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Float32 arrays in the safetensors format: header length (u64), JSON header, raw little-endian data.

    Written by hand, because the trainer must run with only torch and numpy installed. All other code reads the file
    with the safetensors library.
    """
    header, data, offset = {}, [], 0
    for name, tensor in sorted(tensors.items()):
        raw = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        offset += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)
