"""A folder of MIDI files as a corpus: read in parallel and divided by files, with identical pieces kept together."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import midi, pianoroll
from spectralgru.pipeline.corpora.contents import Contents, of_notes
from spectralgru.pipeline.corpora.cores import cores
from spectralgru.training.data.dataset import SPLITS

TEMPI = 20, 400  # quarter notes per minute; files with tempi outside this range mean something else


class Piece(NamedTuple):
    """One file's piano roll."""

    file: str
    roll: npt.NDArray[np.uint8]  # [steps, pitches], from the lowest to the highest sounding pitch
    lowest: int  # MIDI number of column 0
    notes: int
    tempo: float  # quarter notes per minute


def contents(
    folder: Path,
    files: Sequence[str],
    step: Fraction,
    drums: bool,
    any_key: bool,
    split: Sequence[float],
    seed: int,
    may_skip: float,
) -> Contents:
    """The pieces in `files` of `folder`; the parameters are those of `own.MidiFolder`.

    Raises InputError if too few of the files can be read, or a split would be empty.
    """
    pieces, skipped = _read_all(folder, files, step, drums)
    if not pieces or len(skipped) > may_skip * len(files):
        share = f", more than the share of {may_skip:g} that may_skip allows" if pieces else ""
        raise InputError(
            f"{folder}: {len(skipped)} of {len(files)} MIDI files cannot be used{share} "
            f"({'; '.join(list(skipped.values())[:3])}); "
            f"{'take them out, or raise may_skip' if pieces else 'name a folder of others'}"
        )
    groups: dict[bytes, list[Piece]] = defaultdict(list)
    for piece in pieces:
        groups[_identity(piece, any_key)].append(piece)
    splits = _divided(list(groups.values()), split, seed, str(folder))
    lowest = min(piece.lowest for piece in pieces)
    width = max(piece.lowest + piece.roll.shape[1] for piece in pieces) - lowest
    tunes: dict[str, list[npt.NDArray[np.uint8]]] = {
        split: [_widened(piece, lowest, width) for piece in splits[split]] for split in SPLITS
    }
    tempo = round(min(max(median(piece.tempo for piece in pieces), TEMPI[0]), TEMPI[1]), 3)
    arrays, about = of_notes(tunes, lowest, tempo, step)
    sounding = np.concatenate([piece.roll.sum(axis=1) for piece in pieces])
    about |= {
        "summary": {
            "pieces": len(pieces),
            "steps": len(sounding),
            "notes": sum(piece.notes for piece in pieces),
            "pitches": [lowest, lowest + width - 1],
            "polyphony": round(float(sounding[sounding > 0].mean()), 3),  # notes in a step that sounds
            "most_notes": int(sounding.max()),
            "tempo": tempo,  # the median of the pieces
            "skipped": len(skipped),
            "duplicates": len(pieces) - len(groups),
        },
        "skipped": skipped,
        "duplicates": [[piece.file for piece in group] for group in groups.values() if len(group) > 1],
        "files": {split: [piece.file for piece in splits[split]] for split in SPLITS},
    }
    return Contents(arrays, about)


def _read_all(
    folder: Path, files: Sequence[str], step: Fraction, drums: bool
) -> tuple[list[Piece], dict[str, str]]:
    """The pieces, and for each skipped file the reason."""
    pieces, skipped, console = [], {}, Console(stderr=True)
    with ProcessPoolExecutor(cores()) as pool:
        results = pool.map(partial(_read, folder, step, drums), files, chunksize=16)
        shown = track(results, str(folder), len(files), console=console, disable=not console.is_terminal)
        for name, result in zip(files, shown, strict=True):
            if isinstance(result, Piece):
                pieces.append(result)
            else:
                skipped[name] = result
    return pieces, skipped


def _read(folder: Path, step: Fraction, drums: bool, name: str) -> Piece | str:
    """The piece in a file, or the reason why there is none."""
    path = folder / name
    try:
        if not path.is_file():
            return f"{name}: not a file"
        with path.open("rb") as file:
            score = midi.read(file.read(midi.LARGEST + 1), name, drums)
        roll = pianoroll.roll(score.notes, step * score.ticks_per_beat, name, lowest=0, columns=128)
    except OSError as error:
        return f"{name}: cannot be read ({error.strerror})"
    except InputError as error:
        return str(error)
    pitches = np.flatnonzero(roll.any(axis=0))
    lowest, highest = int(pitches[0]), int(pitches[-1])
    return Piece(
        name, np.ascontiguousarray(roll[:, lowest : highest + 1]), lowest, len(score.notes), score.tempo
    )


def _identity(piece: Piece, any_key: bool) -> bytes:
    place = piece.roll.shape[1], -1 if any_key else piece.lowest
    return hashlib.sha256(repr(place).encode() + piece.roll.tobytes()).digest()


def _divided(
    groups: Sequence[list[Piece]], shares: Sequence[float], seed: int, name: str
) -> Mapping[str, list[Piece]]:
    """The pieces of each split, in an order drawn from the seed; groups of identical pieces stay together."""
    total = sum(map(len, groups))
    room = [max(1, round(share * total)) for share in shares[1:]]
    splits: dict[str, list[Piece]] = {split: [] for split in SPLITS}
    for i in np.random.default_rng(seed).permutation(len(groups)):
        for split, size in (("valid", room[0]), ("test", room[1]), ("train", total)):
            if len(splits[split]) + len(groups[i]) <= size:
                splits[split] += groups[i]
                break
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise InputError(
            f"{name}: {' and '.join(empty)} would be empty ({total} pieces, {len(groups)} of them "
            "different, and identical ones stay together); add pieces, or change split"
        )
    return splits


def _widened(piece: Piece, lowest: int, width: int) -> npt.NDArray[Any]:
    before = piece.lowest - lowest
    return np.pad(piece.roll, ((0, 0), (before, width - before - piece.roll.shape[1])))
