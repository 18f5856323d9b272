"""Corpora of the user's own: folders of MIDI files and texts, whole, odd and broken."""

import io
import json
import os
import random
from itertools import combinations
from pathlib import Path

import mido
import numpy as np
import pytest

from spectralgru.pipeline import cli
from spectralgru.pipeline.corpora import nottingham
from spectralgru.pipeline.corpora.archive import read_members
from spectralgru.pipeline.corpora.midi import Note
from spectralgru.pipeline.corpora.prepare import prepare
from spectralgru.pipeline.corpora.sources import MIRROR_VARIABLE
from spectralgru.pipeline.params.keys import parse_own
from spectralgru.training.data.dataset import SPLITS, load

ROOT = Path(__file__).parents[2]


def own(**definition):
    return parse_own("mine", {key: str(v) if isinstance(v, Path) else v for key, v in definition.items()})


def record_of(path):
    return json.loads(path.with_suffix(".json").read_text())


def melody(seed, steps=12, ticks=480, channel=0, shift=0):
    """A MIDI file of eighth notes."""
    rng = random.Random(seed)
    notes = [Note(rng.randint(48, 72) + shift, i * ticks // 2, (i + 1) * ticks // 2) for i in range(steps)]
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(90 + seed % 3))])
    for note in notes:
        track.append(mido.Message("note_on", note=note.pitch, channel=channel))
        track.append(mido.Message("note_off", note=note.pitch, channel=channel, time=note.end - note.start))
    file = mido.MidiFile(type=0, ticks_per_beat=ticks, tracks=[track])
    output = io.BytesIO()
    file.save(file=output)
    return output.getvalue()


def write(folder, count=10, **more):
    """A folder of melodies that all differ."""
    for seed in range(count):
        path = folder / f"{seed % 3}" / f"tune {seed}.{('mid', 'MIDI', 'kar')[seed % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(melody(seed, **more))
    return folder


def run(*arguments):
    """The command line in this process: exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["spectralgru", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0
    return 0


# Real collections


@pytest.fixture(scope="session")
def tunes(tmp_path_factory):
    """Nottingham's MIDI files, unpacked."""
    archive = (
        Path(os.environ.get(MIRROR_VARIABLE) or ROOT.parent / "shared" / "data") / "nottingham/Nottingham.zip"
    )
    if not archive.exists():
        pytest.skip(f"no mirror: {archive}")
    folder = tmp_path_factory.mktemp("nottingham")
    for name, content in read_members(archive, (".mid",)):
        path = folder / "midi" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "midi"


def test_nottinghams_folder_gives_the_pieces_of_the_built_in_corpus(tunes, tmp_path):
    path = prepare("mine", tmp_path, own(midi=tunes, step="1/2"))
    notes, record = load(path), record_of(path)
    assert record["summary"]["pieces"] == 1037
    # The built-in drops the first row of each, as the published rolls do.
    assert record["summary"]["steps"] == 176_561 + 45_513 + 44_463 + 1037
    assert (record["tempo"], record["summary"]["skipped"]) == (120, 0)
    files = {split: record["files"][split] for split in SPLITS}
    for split in SPLITS:
        for name, tune in zip(files[split][:60], notes.tunes(split), strict=False):
            built_in = nottingham.tune((tunes / name).read_bytes(), name, 0)
            np.testing.assert_array_equal(tune[1:], built_in[:, notes.lowest - 1 :][:, : tune.shape[1]])
            assert tune.sum() - tune[0].sum() == built_in.sum()
    # Three tunes are there twice, under other names.
    assert len(record["duplicates"]) == record["summary"]["duplicates"] == 3
    assert [len(files[split]) for split in SPLITS] == [829, 104, 104]
    seen = {split: {tune.tobytes() for tune in notes.tunes(split)} for split in SPLITS}
    assert not any(seen[a] & seen[b] for a, b in combinations(SPLITS, 2))


def test_music21s_other_corpora_as_midi(tmp_path):
    """A mass by Palestrina, motets by Josquin and fiddle tunes, parsed and written by music21."""
    music21 = pytest.importorskip("music21")
    corpus, scores = Path(music21.__file__).parent / "corpus", []
    for work in ("palestrina/Agnus_00.krn", "josquin/4vPerIlludAveProlatum.abc"):
        read = music21.converter.parse(corpus / work)
        scores += list(read.scores) if isinstance(read, music21.stream.Opus) else [read]
    scores += [
        music21.converter.parse(path) for path in sorted(corpus.glob("ryansMammoth/*Hornpipe.abc"))[:4]
    ]
    (tmp_path / "midi").mkdir()
    for i, score in enumerate(scores):
        score.write("midi", tmp_path / f"midi/{i}.mid")
    record = record_of(prepare("mine", tmp_path, own(midi=tmp_path / "midi", step="1/4")))
    assert record["summary"]["pieces"] == len(scores) == 7
    assert record["summary"]["skipped"] == record["summary"]["duplicates"] == 0
    assert record["summary"]["most_notes"] >= 4


def test_ptb_through_the_text_path_is_ptb(ptb, data, tmp_path):
    files = {split: str(data / f"raw/ptb/ptb.{split}.txt") for split in SPLITS}
    for vocabulary in (None, 10_000):
        path = prepare("mine", tmp_path, own(text=files, vocabulary=vocabulary))
        assert path.read_bytes() == ptb.read_bytes()
        assert record_of(path)["vocabulary"] == record_of(ptb)["vocabulary"]
