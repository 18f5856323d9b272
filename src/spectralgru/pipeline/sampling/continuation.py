"""Continues a sequence: the model reads it, and then what is drawn from its own predictions."""

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spectralgru.errors import InputError
from spectralgru.training.models import ReplicatedModel

LONGEST = 100_000  # steps to sample: hours of music, or a novel
CHUNK = 100  # steps of a beginning to read at once, which limits the memory for logits

Array = npt.NDArray[np.float64]
Drawn = TypeVar("Drawn")


def continue_notes(
    model: ReplicatedModel,
    beginning: npt.NDArray[np.uint8],
    steps: int,
    temperature: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """The `steps` steps that follow the piano roll `beginning` [T, notes]: uint8 [steps, notes].

    Every note of a step is drawn independently, as the output layer defines: it sounds with probability
    sigmoid(logit / temperature). Silence precedes the first step, as in training. Raises InputError for less than one
    step, or a temperature that is not finite and above 0.
    """
    silence = np.zeros((1, beginning.shape[1]), np.uint8)
    read = torch.from_numpy(np.concatenate([silence, beginning])).float()

    def draw(logits: Array) -> tuple[npt.NDArray[np.uint8], Tensor]:
        with np.errstate(over="ignore"):  # exp(inf) is intended: a probability of 0
            probability = 1 / (1 + np.exp(-logits / temperature))
        sounding = (rng.random(len(logits)) < probability).astype(np.uint8)
        return sounding, torch.from_numpy(sounding).float()

    return np.stack(_continue(model, read[None, :, None], steps, temperature, draw))


def continue_words(
    model: ReplicatedModel, beginning: list[int], steps: int, temperature: float, rng: np.random.Generator
) -> list[int]:
    """The `steps` token ids that follow `beginning` (at least one id), drawn from softmax(logits / temperature).

    Raises InputError for less than one step, or a temperature that is not finite and above 0.
    """

    def draw(logits: Array) -> tuple[int, Tensor]:
        with np.errstate(over="ignore"):
            cumulated = np.exp((logits - logits.max()) / temperature).cumsum()
        token = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
        return token, torch.tensor(token)

    return _continue(model, torch.tensor(beginning)[:, None], steps, temperature, draw)


@torch.no_grad()
def _continue(
    model: ReplicatedModel,
    inputs: Tensor,
    steps: int,
    temperature: float,
    draw: Callable[[Array], tuple[Drawn, Tensor]],
) -> list[Drawn]:
    """`inputs`: [T, 1] (words) or [1, T, 1, V] (notes); `draw` turns logits [V] into the next step."""
    if not 1 <= steps <= LONGEST:
        raise InputError(f"steps is {steps}: at least 1 step must be sampled, at most {LONGEST}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(
            f"temperature is {temperature:g}: a number above 0 is needed; 1 is the model as trained"
        )
    time = 0 if model.kind == "words" else 1
    state, x = model.initial_state(1), torch.empty(0)
    for chunk in torch.split(inputs, CHUNK, time):
        x, state = model(chunk, state)
    drawn = []
    for step in range(steps):
        what, read = draw(model.logits(x)[0, -1, 0].double().numpy())
        drawn.append(what)
        if step + 1 < steps:
            x, state = model(read.view(1, 1, *([1] if time else []), *read.shape), state)
    return drawn
