"""Prepared corpora: reading them, cutting subsets, predictors without memory, and the text of a small treebank."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from spectralgru.errors import InputError
from spectralgru.files import sha256, write_json
from spectralgru.pipeline.corpora import matlab, ptb
from spectralgru.pipeline.corpora.prepare import prepare
from spectralgru.training.data.baselines import independent_note_loss, unigram_loss
from spectralgru.training.data.dataset import Notes, Words, load
from spectralgru.training.data.subset import subset_tunes, subset_words


def treebank(folder, train, valid="the cat\n", test="the <unk>\n"):
    for split, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"ptb.{split}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def words(train, valid="", test=""):
    """Words out of strings; `.` ends a line."""
    names = list(dict.fromkeys([*train.split(), *valid.split(), *test.split()]))
    ids = [np.array([names.index(w) for w in text.split()], dtype=np.int32) for text in (train, valid, test)]
    return Words("ptb", "0", *ids, ["<eos>" if n == "." else n for n in names])


def text(of, split):
    return " ".join(of.vocabulary[i] for i in of.split(split))


def test_lines_end_with_eos_and_ids_follow_first_appearance_in_train(tmp_path):
    ids, about = ptb.read(treebank(tmp_path, " the cat sat \n the <unk>  é\n"))
    assert about["vocabulary"] == ["the", "cat", "sat", "<eos>", "<unk>", "é"]
    assert ids["train"].tolist() == [0, 1, 2, 3, 0, 4, 5, 3]
    assert ids["valid"].tolist() == [0, 1, 3]
    assert ids["test"].dtype == np.int32


@pytest.mark.parametrize(
    ("split", "content", "reason"),
    [
        (
            "train",
            b"the caf\xe9 cat\n",
            r"ptb\.train\.txt: not UTF-8 \(byte 0xe9 at offset 7\).*fetch it again",
        ),
        ("test", b"the cat \xff\n", r"ptb\.test\.txt: not UTF-8 \(byte 0xff at offset 8\)"),
        ("train", "", r"ptb\.train\.txt: empty"),
        ("valid", "\n", r"ptb\.valid\.txt: empty"),
    ],
)
def test_bad_text_is_refused(tmp_path, split, content, reason):
    treebank(tmp_path, **{"train": "the cat <unk>\n", split: content})
    with pytest.raises(InputError, match=reason):
        ptb.read(tmp_path)


def test_missing_text_is_refused(tmp_path):
    (treebank(tmp_path, "the cat\n") / "ptb.valid.txt").unlink()
    with pytest.raises(InputError, match=r"ptb\.valid\.txt: no such file"):
        ptb.read(tmp_path)


# Reading what was prepared


@pytest.fixture
def prepared(tmp_path):
    path = tmp_path / "jigs.npz"
    rolls = {s: np.eye(5, 93, dtype=np.uint8) for s in ("train", "valid", "test")}
    np.savez(path, **rolls, **{f"{s}_lengths": np.array([2, 3], dtype=np.int32) for s in rolls})
    write_json(
        path.with_suffix(".json"), {"corpus": "jigs", "kind": "notes", "lowest": 1, "sha256": sha256(path)}
    )
    return path


def test_notes_are_loaded(prepared):
    notes = load(prepared)
    assert (notes.kind, notes.name, notes.sha256, notes.lowest) == ("notes", "jigs", sha256(prepared), 1)
    assert [tune.tolist() for tune in notes.tunes("valid")] == [
        np.eye(5, 93)[:2].tolist(),
        np.eye(5, 93)[2:].tolist(),
    ]


def test_missing_or_damaged_is_refused(prepared):
    record = prepared.with_suffix(".json")
    good, good_record = prepared.read_bytes(), record.read_text()

    def refused(reason):
        with pytest.raises(InputError, match=f"{reason}.*spectralgru prepare --corpus jigs"):
            load(prepared)

    record.write_text("{")
    refused(r"jigs\.json: not a corpus record")
    record.write_text("[]")
    refused(r"jigs\.npz: damaged")
    record.unlink()
    refused(r"jigs\.json: no such file")
    record.write_text(good_record)
    for content in (good[:-10], good[:500] + b"\xff" + good[501:], b""):
        prepared.write_bytes(content)
        refused(r"jigs\.npz: damaged")
    write_json(record, json.loads(good_record) | {"sha256": sha256(prepared)})
    refused(r"jigs\.npz: not a prepared corpus")
    prepared.unlink()
    refused(r"jigs\.npz: no such file")


def test_loading_needs_numpy_only():
    code = "import sys; from spectralgru.training.data import baselines, dataset, subset\n"
    banned = "{'httpx', 'rich', 'tenacity', 'mido', 'music21', 'scipy', 'pydantic', 'pandas', 'typer'}"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print({banned} & set(sys.modules))"], capture_output=True, text=True
    )
    assert done.stdout == "set()\n", done.stderr


# Subsets


def test_subset_ends_at_a_line_and_keeps_the_most_frequent_words():
    whole = words("b a a . c b . d d d d .", "a c d .", "d b . a a")
    part = subset_words(whole, train_tokens=9, valid_tokens=4, test_tokens=4, vocabulary_size=4)
    assert text(part, "train") == "b a a <eos> <unk> b <eos>"
    assert part.vocabulary == ["b", "a", "<eos>", "<unk>"]  # c comes once; d only after the cut
    assert text(part, "valid") == "a <unk> <unk> <eos>"
    assert text(part, "test") == "<unk> b <eos>"
    assert part.train.dtype == np.int32
    assert (part.name, part.sha256) == (whole.name, whole.sha256)


def test_ties_go_to_the_first_and_unk_is_there_even_if_nothing_needs_it_in_train():
    assert subset_words(words("b a ."), vocabulary_size=3).vocabulary == ["b", "<unk>", "<eos>"]
    assert subset_words(words("b a ."), vocabulary_size=9).vocabulary == ["b", "a", "<eos>", "<unk>"]


def test_whole_corpus_is_its_own_subset():
    whole = words("b <unk> a . c b .", "a c .", "b .")
    same = subset_words(whole)
    assert same.vocabulary == whole.vocabulary
    for split in ("train", "valid", "test"):
        assert np.array_equal(same.split(split), whole.split(split))


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "<unk>"]), max_size=4), min_size=1, max_size=8),
    st.integers(5, 40),
    st.integers(2, 7),
)
def test_subset_properties(lines, tokens, size):
    whole = words(" ".join([*line, "."][i] for line in lines for i in range(len(line) + 1)))
    part = subset_words(whole, train_tokens=tokens, vocabulary_size=size)
    old, new = text(whole, "train").split()[:tokens], text(part, "train").split()
    assert new[-1] == "<eos>"
    assert "<eos>" not in old[len(new) :]
    assert all(n in (o, "<unk>") for o, n in zip(old, new, strict=False))
    kept = set(part.vocabulary) - {"<eos>", "<unk>"}
    counts = Counter(old[: len(new)])
    assert len(part.vocabulary) == len(set(part.vocabulary)) <= size
    assert {"<eos>", "<unk>"} <= set(part.vocabulary)
    lost = set(counts) - kept - {"<eos>", "<unk>"}
    assert not lost or len(part.vocabulary) == size
    assert all(counts[k] >= counts[w] for k in kept for w in lost)
    first = list(dict.fromkeys(new))
    assert part.vocabulary[: len(first)] == first


@pytest.mark.parametrize(
    "wrong",
    [{"train_tokens": 0}, {"valid_tokens": -1}, {"train_tokens": 2}, {"vocabulary_size": 1}],
    ids=lambda w: next(iter(w)),
)
def test_impossible_subsets_are_refused(wrong):
    key, value = next(iter(wrong.items()))
    with pytest.raises(InputError, match=f"{key}={value}: "):
        subset_words(words("a b c .", "a .", "b ."), **wrong)


def notes(train, valid, lengths):
    roll = np.array(train, dtype=np.uint8)
    lengths = np.array(lengths, dtype=np.int32)
    return Notes("jigs", "0", roll, np.array(valid, dtype=np.uint8), roll, lengths, lengths, lengths, 1)


def test_first_tunes():
    whole = notes([[0, 1], [1, 1], [1, 0]], [[0, 0], [1, 0], [0, 0]], [1, 2])
    part = subset_tunes(whole, train_tunes=1, valid_tunes=5)
    assert part.train.tolist() == [[0, 1]]
    assert part.train_lengths.tolist() == [1]
    assert part.valid.tolist() == whole.valid.tolist()
    assert len(part.tunes("test")) == 2
    with pytest.raises(InputError, match="test_tunes=0"):
        subset_tunes(whole, test_tunes=0)


# Predictors without memory


def test_unigram_loss_by_hand():
    # Counts with one added: a 3, <eos> 2, b 1 of 6.
    assert unigram_loss(words("a a .", "b a ."), "valid") == pytest.approx(
        -np.log([1 / 6, 3 / 6, 2 / 6]).mean()
    )


def test_independent_note_loss_by_hand():
    # Rates with one added: 3/4 and 1/4 over two steps.
    loss = independent_note_loss(notes([[1, 0], [1, 0]], [[1, 1], [0, 0]], [1, 1]), "valid")
    assert loss == pytest.approx(-(np.log(0.75) + np.log(0.25) + np.log(0.25) + np.log(0.75)) / 2)


# MATLAB piano rolls


def cells(*tunes):
    row = np.empty((1, len(tunes)), dtype=object)
    row[0, :] = tunes
    return row


def test_matlab_rolls(tmp_path):
    path = tmp_path / "rolls.mat"
    tune = np.eye(4, 88)
    savemat(path, {f"{s}data": cells(tune, tune[:3]) for s in ("train", "valid", "test")})
    rolls = matlab.read(path)
    assert [t.shape for t in rolls["test"]] == [(4, 88), (3, 88)]
    assert rolls["train"][0].dtype == np.uint8
    good = path.read_bytes()
    for content in (b"", b"no matlab", good[:200], good[:-100]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"rolls\.mat: .*fetch it again"):
            matlab.read(path)
    savemat(path, {f"{s}data": cells(tune * 2, tune) for s in ("train", "valid", "test")})
    with pytest.raises(InputError, match="tune 0 of train is not a 0/1 roll"):
        matlab.read(path)
    savemat(path, {"traindata": cells(tune, tune)})
    with pytest.raises(InputError, match="no variable 'validdata'"):
        matlab.read(path)
    with pytest.raises(InputError, match="no such file"):
        matlab.read(tmp_path / "other.mat")


def test_unknown_corpus_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"corpus 'jigs': unknown; one of ptb, nottingham"):
        prepare("jigs", tmp_path)
    assert list(tmp_path.iterdir()) == []
