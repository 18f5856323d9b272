"""MIDI files, archives, MATLAB files and scores, damaged: each is read or refused in one line, within its limits."""

import os
import random
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from damage import MIB, damaged_bytes, in_child
from scipy.io import savemat

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import chorales, matlab, midi, nottingham, pianoroll, sources
from spectralgru.pipeline.corpora.archive import read_members
from spectralgru.pipeline.corpora.midi import Note


@pytest.fixture(scope="module")
def tunes() -> list[bytes]:
    """Ten tunes of the Nottingham collection, or made ones where there is no mirror."""
    mirror = os.environ.get(sources.MIRROR_VARIABLE)
    if mirror:
        members = read_members(Path(mirror) / "nottingham" / "Nottingham.zip", (".mid",))
        return sorted((content for _, content in members), key=len)[:500:50]
    rng = random.Random(1)
    voices = [[Note(rng.randint(40, 80), 240 * i, 240 * i + 240) for i in range(60)] for _ in range(3)]
    return [midi.write(voices[:count], 480) for count in (1, 2, 3)]


def refused_or(read) -> str | None:
    try:
        read()
    except InputError as error:
        line = str(error)
        return None if line.isprintable() and len(line) < 1000 else f"not a line: {line!r}"
    return None


def test_500_midi_files(tunes, rng):
    def attempt(content: bytes) -> str | None:
        return refused_or(lambda: pianoroll.roll(midi.read(content, "a.mid").notes, nottingham.STEP, "a.mid"))

    cases = [damaged_bytes(rng.choice(tunes), rng) for _ in range(500)]
    assert in_child(attempt, cases, memory=256 * MIB) == []


def test_300_archives(tunes, rng, tmp_path):
    archives = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        output = BytesIO()
        with zipfile.ZipFile(output, "w", method) as archive:
            for number, tune in enumerate(tunes[:4]):
                archive.writestr(f"folder/{number}.mid", tune)
            archive.writestr("score.mxl", b"<score-partwise/>")
        archives.append(output.getvalue())
    path = tmp_path / "in" / "tunes.zip"
    path.parent.mkdir()

    def attempt(content: bytes) -> str | None:
        path.write_bytes(content)
        return (
            refused_or(lambda: chorales.read(path))
            or refused_or(lambda: nottingham.read(path))
            or refused_or(lambda: chorales.to_midi(content, "a.mxl"))
        )

    cases = [damaged_bytes(rng.choice(archives), rng) for _ in range(300)]
    assert in_child(attempt, cases, memory=512 * MIB) == []
    assert {file.name for file in tmp_path.rglob("*")} == {"in", "tunes.zip"}


def matlab_file(compressed: bool) -> bytes:
    rng = np.random.default_rng(2)
    cells = {}
    for split in ("train", "valid", "test"):
        cell = np.empty((1, 3), object)
        for place in range(3):
            cell[0, place] = (rng.random((rng.integers(3, 30), 88)) < 0.1).astype(np.uint8)
        cells[f"{split}data"] = cell
    output = BytesIO()
    savemat(output, cells, do_compression=compressed)
    return output.getvalue()


def test_300_matlab_files(rng, tmp_path):
    path = tmp_path / "rolls.mat"
    whole = [matlab_file(True), matlab_file(False)]

    def attempt(content: bytes) -> str | None:
        path.write_bytes(content)
        return refused_or(lambda: matlab.read(path))

    assert in_child(attempt, whole) == []
    # Damage to the plain file reaches the structure; a compressed one mostly fails its checksum.
    cases = [damaged_bytes(rng.choice([whole[0], whole[1], whole[1], whole[1]]), rng) for _ in range(300)]
    assert in_child(attempt, cases, memory=4096 * MIB) == []


def test_a_matlab_file_that_crashes_its_reader_or_has_no_end_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "rolls.mat"
    path.write_bytes(matlab_file(False))
    monkeypatch.setattr(matlab, "MEMORY", 16 * MIB)
    monkeypatch.setattr(matlab, "SECONDS", 1)
    monkeypatch.setattr(matlab, "loadmat", lambda *_, **__: bytearray(1 << 30))
    with pytest.raises(InputError, match=r"rolls\.mat: damaged"):
        matlab.read(path)
    monkeypatch.setattr(matlab, "loadmat", lambda *_, **__: [None for _ in iter(int, 1)])
    start = time.monotonic()
    with pytest.raises(InputError, match=r"rolls\.mat: damaged"):
        matlab.read(path)
    assert time.monotonic() - start < 20
