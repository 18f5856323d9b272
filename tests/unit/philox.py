"""Philox 4x32-10 in Python's integers, and the dropout masks that follow from it."""

import torch


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = right >> 32 ^ b ^ low, right % 2**32, left >> 32 ^ d ^ high, left % 2**32
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def masks(seed: int, drawn: int, shape: tuple[int, ...], share: float) -> torch.Tensor:
    """Of one replica, in float64."""
    length = torch.Size(shape).numel()
    groups = -(-length // 4)
    key = seed % 2**32, (seed >> 32) % 2**32
    words = [philox((group, drawn % 2**32, 0, 0), key) for group in range(groups)]
    numbers = [words[i % groups][i // groups] >> 8 for i in range(length)]
    return (torch.tensor(numbers) < round(share * 2**24)).double().view(shape) / share
