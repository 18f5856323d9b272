"""Nottingham folk tunes: MIDI to the piano rolls of Boulanger-Lewandowski et al. (2012)."""

import csv
import hashlib
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import midi, pianoroll
from spectralgru.pipeline.corpora.archive import read_members
from spectralgru.resources import resource
from spectralgru.training.data.dataset import SPLITS

STEP = 240  # ticks: an eighth note at 480 ticks per beat
SPLIT_TABLE = resource("nottingham_split.csv")


def read(archive: Path, table: Path = SPLIT_TABLE) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """The tunes of each split in the published order, uint8 [steps, 93], from `Nottingham.zip`.

    `table` gives the split of every file, its position there, and by how many semitones to transpose it. The published
    archives have different folders, so files are found by name and content.

    Raises InputError if a tune of the table is not in the archive.
    """
    content: dict[tuple[str, str], bytes] = {}
    for name, data in read_members(archive, (".mid",)):
        content[PurePosixPath(name).name, hashlib.sha256(data).hexdigest()] = data
    if not table.is_file():
        raise InputError(
            f"{table}: no such file; it comes with the package (resources/): install it again or restore the file"
        )
    places: dict[str, dict[int, npt.NDArray[np.uint8]]] = {split: {} for split in SPLITS}
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            key = row["file"], row["midi_sha256"]
            if key not in content:
                raise InputError(
                    f"{archive}: {key[0]} with SHA-256 {key[1]} is not in it; delete the archive and fetch it again"
                )
            places[row["split"]][int(row["index_in_split"])] = tune(
                content[key], key[0], int(row["transpose_semitones"])
            )
    return {split: [tunes[place] for place in sorted(tunes)] for split, tunes in places.items()}


def tune(content: bytes, name: str, transpose: int) -> npt.NDArray[np.uint8]:
    """Piano roll of one tune; its first row is dropped, as in the published rolls."""
    return pianoroll.roll(midi.read(content, name).notes, STEP, name, transpose)[1:]
