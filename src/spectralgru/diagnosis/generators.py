"""States of the random number generators, saved and restored."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def random_states() -> dict[str, Any]:
    """The states of the generators of the CPU and of every GPU in use."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


@contextmanager
def kept_random(states: Mapping[str, Any]) -> Iterator[None]:
    """Start the generators from `states` inside the block; afterwards they continue where they were."""
    before = random_states()
    _set_random(states)
    try:
        yield
    finally:
        _set_random(before)


def _set_random(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    for index, state in enumerate(states.get("cuda", [])):
        if torch.cuda.is_available() and index < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, index)
