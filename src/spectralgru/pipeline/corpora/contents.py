"""A prepared corpus: its arrays, and what its record says about them."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spectralgru.training.data.dataset import SPLITS


class Contents(NamedTuple):
    """Arrays of a `.npz`, and entries of the `.json` beside it."""

    arrays: dict[str, Any]
    about: dict[str, Any]


def of_words(
    ids: Mapping[str, npt.NDArray[np.int32]], vocabulary: Sequence[str], separator: str = " "
) -> Contents:
    """The contents of a corpus of words, from the token ids (int32 [tokens]) of each split."""
    counts = {split: {"tokens": len(ids[split])} for split in SPLITS}
    about = {"kind": "words", "counts": counts, "types": len(vocabulary), "separator": separator}
    return Contents(dict(ids), about | {"vocabulary": list(vocabulary)})


def of_notes(
    tunes: Mapping[str, Sequence[npt.NDArray[np.uint8]]],
    lowest: int,
    tempo: float,
    step: Fraction = Fraction(1, 2),
) -> Contents:
    """The contents of a corpus of notes, from the piano rolls (uint8 [steps, notes]) of each split.

    `lowest`: MIDI number of column 0; `step`: length of a row in quarter notes; `tempo`: quarter notes per minute.
    """
    arrays: dict[str, Any] = {split: np.concatenate(tunes[split]) for split in SPLITS}
    counts = {split: {"tunes": len(tunes[split]), "steps": len(arrays[split])} for split in SPLITS}
    about = {"kind": "notes", "counts": counts, "notes": arrays["train"].shape[1], "lowest": lowest}
    arrays |= {
        f"{split}_lengths": np.array([len(tune) for tune in tunes[split]], np.int32) for split in SPLITS
    }
    return Contents(arrays, about | {"step": str(step), "tempo": tempo})
