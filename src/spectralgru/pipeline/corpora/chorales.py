"""Four-part chorales of J. S. Bach in music21's corpus: scores to MIDI, MIDI to piano rolls.

The step is an eighth note: nearly all notes start on one, and quarters would lose the passing notes. Nothing is
transposed, and repeats are played once.
"""

import gc
import re
from concurrent.futures import ProcessPoolExecutor
from importlib.resources.abc import Traversable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spectralgru.errors import InputError, RunError
from spectralgru.files import atomic_path
from spectralgru.pipeline.corpora import midi, pianoroll
from spectralgru.pipeline.corpora.archive import members, pack, read_members
from spectralgru.pipeline.corpora.cores import cores
from spectralgru.training.data.dataset import Split

if TYPE_CHECKING:
    from music21.stream import Part

VOICES = ["Soprano", "Alto", "Tenor", "Bass"]
TICKS = 480  # a quarter note
STEP = 240  # ticks: an eighth note
# Hash of the archive that from_package makes: the same scores give the same bytes.
SCORES_SHA256 = "5e73f7d7d1490fc40e02901d1db4a286fc9b3009d57ee9a0456e0457b5615078"
_TURN: tuple[Split, ...] = ("train", "train", "train", "valid", "test")


def from_package(root: Traversable, name: str) -> bytes:
    """All scores of `corpus/bach` in the package music21 (MusicXML, plain or compressed), as one zip archive.

    Raises FileNotFoundError if the package lacks its corpus.
    """
    scores = {
        s.name: s.read_bytes()
        for s in (root / "corpus" / "bach").iterdir()
        if s.name.endswith((".mxl", ".xml"))
    }
    return pack(dict(sorted(scores.items())))


def write_midi(scores: Path, target: Path) -> None:
    """Write the four-part chorales of the archive `scores` as MIDI files into the archive `target`, by BWV number.

    Raises InputError for a score that is not MusicXML.
    """
    members = sorted(read_members(scores, (".mxl", ".xml")), key=lambda member: _bwv(member[0]))
    names, contents = zip(*members, strict=True)
    # music21 creates so many objects that with the default threshold a third of the time goes into garbage collection.
    with ProcessPoolExecutor(cores(), initializer=gc.set_threshold, initargs=(1_000_000,)) as pool:
        files = list(pool.map(to_midi, contents, names, chunksize=8))
    with atomic_path(target) as temporary:
        temporary.write_bytes(
            pack({f"{Path(name).stem}.mid": file for name, file in zip(names, files, strict=True) if file})
        )


def to_midi(score: bytes, name: str) -> bytes | None:
    """The MusicXML `score` as a MIDI file, one track for each voice; None unless its parts are the four voices.

    Tied notes become one note, grace notes are left out. Raises InputError if `score` is not MusicXML.
    """
    try:
        from music21 import converter
        from music21.stream import Score
    except ModuleNotFoundError:
        raise RunError(
            "chorales: reading them needs music21, which is not installed; pip install music21"
        ) from None
    try:
        text = _musicxml(score, name)
        parts = text.count("<score-part ")
        if parts and parts != len(VOICES):  # parsing is slow, especially for large scores
            return None
        parsed = converter.parseData(text, format="musicxml")
    except Exception as error:  # music21 raises errors of any kind: AttributeError, RecursionError, its own
        remedy = "delete the scores and fetch them again"
        raise InputError(f"{name}: not a MusicXML score ({error}); {remedy}") from None
    if not isinstance(parsed, Score) or [part.partName for part in parsed.parts] != VOICES:
        return None
    return midi.write([_notes(part) for part in parsed.parts], TICKS)


def _musicxml(score: bytes, name: str) -> str:
    if name.endswith(".mxl"):
        inside = members(BytesIO(score), name, ("xml",))
        score = next((content for inner, content in inside if not inner.startswith("META-INF")), b"")
    return score.decode("utf-8")


def _notes(part: "Part") -> list[midi.Note]:
    notes: list[midi.Note] = []
    for element in part.flatten().notes:
        start = round(element.offset * TICKS)
        end = round((element.offset + element.quarterLength) * TICKS)
        continued = element.tie is not None and element.tie.type in ("continue", "stop")
        for pitch in element.pitches:
            if continued and notes and notes[-1].pitch == pitch.midi and notes[-1].end == start:
                notes[-1] = notes[-1]._replace(end=end)
            elif end > start:
                notes.append(midi.Note(pitch.midi, start, end))
    return notes


def read(archive: Path) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """The chorales of each split, uint8 [steps, 93], from the MIDI files in `archive`, which are in order of BWV
    number.

    Of every five chorales three go to train, one to valid and one to test. A chorale that repeats an earlier one note
    for note, in any key, is left out, so that no chorale is in two splits.
    """
    splits: dict[str, list[npt.NDArray[np.uint8]]] = {"train": [], "valid": [], "test": []}
    seen: set[tuple[int, bytes]] = set()
    for name, content in read_members(archive, (".mid",)):
        tune = pianoroll.roll(midi.read(content, name).notes, STEP, name)
        sounding = np.flatnonzero(tune.any(axis=0))
        in_any_key = len(tune), np.ascontiguousarray(tune[:, sounding[0] : sounding[-1] + 1]).tobytes()
        if in_any_key not in seen:
            splits[_TURN[len(seen) % 5]].append(tune)
            seen.add(in_any_key)
    return splits


def _bwv(name: str) -> list[tuple[int, str]]:
    """Sort key of a name like `bwv248.12-2.mxl`: numbers by value, everything else alphabetically."""
    return [(int(number or 0), text) for number, text in re.findall(r"(\d+)|([^\d]+)", Path(name).stem)]
