"""Notes to piano rolls: which pitch sounds in which step."""

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora.midi import Note

NOTES = 93  # columns of a roll made from MIDI: index = MIDI number - 1, pitches 1 to 93
LOWEST = 1
LONGEST = 100_000  # steps of a tune; with eighth notes, seven hours


def roll(
    notes: Iterable[Note],
    step: int | Fraction,
    name: str,
    transpose: int = 0,
    lowest: int = LOWEST,
    columns: int = NOTES,
) -> npt.NDArray[np.uint8]:
    """Piano roll, uint8 [steps, columns], whose first column is the pitch `lowest`; `step` in ticks.

    A note, transposed by so many semitones, sounds in rows floor(start/step + 1/2) .. floor(end/step + 1/2) - 1, in
    exact integer arithmetic.

    Raises InputError, which names the tune `name`, for a pitch without a column, and for a tune shorter than half a
    step or longer than 100,000 steps.
    """
    rows = [(_nearest(n.start, step), _nearest(n.end, step), n.pitch + transpose) for n in notes]
    length = max((end for _, end, _ in rows), default=0)
    if length == 0:
        raise InputError(f"{name}: shorter than half a step of {step} ticks; leave it out")
    if length > LONGEST:
        raise InputError(
            f"{name}: {length} steps of {step} ticks, more than {LONGEST}; divide it or leave it out"
        )
    result = np.zeros((length, columns), dtype=np.uint8)
    for start, end, pitch in rows:
        if not lowest <= pitch < lowest + columns:
            raise InputError(
                f"{name}: pitch {pitch} (MIDI number) lies outside {lowest}..{lowest + columns - 1}; transpose it"
            )
        result[start:end, pitch - lowest] = 1
    return result


def _nearest(ticks: int, step: int | Fraction) -> int:
    return (2 * ticks * step.denominator + step.numerator) // (2 * step.numerator)
