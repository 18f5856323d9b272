"""Corpora of the user's own: folders of MIDI files and texts, whole, odd and broken."""

import io
import json
import os
import random
import re
import shutil
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import combinations
from pathlib import Path

import mido
import numpy as np
import pytest
import yaml

from spectralgru.errors import InputError
from spectralgru.pipeline import cli
from spectralgru.pipeline.corpora import midi, nottingham
from spectralgru.pipeline.corpora.archive import read_members
from spectralgru.pipeline.corpora.midi import Note
from spectralgru.pipeline.corpora.prepare import is_current, prepare
from spectralgru.pipeline.corpora.sources import MIRROR_VARIABLE
from spectralgru.pipeline.params import parse_params
from spectralgru.pipeline.params.keys import parse_own
from spectralgru.pipeline.sampling.campaign import Samples, _write_music, _write_words
from spectralgru.pipeline.sampling.trained import open_run
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


# Folders


def test_any_form_of_midi_is_found_wherever_it_lies(tmp_path):
    """The same melody at several resolutions, in any case of suffix, below folders; other files are left alone."""
    folder = tmp_path / "music"
    for i, ticks in enumerate((24, 96, 480, 960, 15360)):
        (folder / f"{i}").mkdir(parents=True)
        (folder / f"{i}/a.{('mid', 'MID', 'midi', 'Kar', 'smf')[i]}").write_bytes(melody(1, ticks=ticks))
    write(folder, 4)
    (folder / "notes.txt").write_text("not music")
    (folder / "b.mid").symlink_to(folder / "0/a.mid")
    record = record_of(prepare("mine", tmp_path, own(midi=folder)))
    assert record["summary"]["pieces"] == 10
    (same,) = record["duplicates"]
    assert len(same) == 7  # one of the four melodies is it, too
    assert [split for split in SPLITS if set(same) & set(record["files"][split])] == ["train"]
    assert record["raw"] == {
        str(folder): {"sha256": record["raw"][str(folder)]["sha256"], "source": "10 MIDI files"}
    }


@pytest.mark.parametrize("step", ["1", "1/3", "1/64", "2/7", "4"])
def test_rows_are_exact_fractions_of_a_quarter_note(tmp_path, step):
    rng, folder = random.Random(0), tmp_path / "music"
    folder.mkdir()
    rolls = {}
    for i in range(6):
        parts = [[], []]
        for part in parts:
            starts = sorted(rng.sample(range(0, 4000), 8))
            part += [Note(60 + j, start, start + rng.randint(1, 900)) for j, start in enumerate(starts)]
        parts[0].append(Note(40, 0, 5000))
        (folder / f"{i}.mid").write_bytes(midi.write(parts, 97))
        rows = {
            (row, note.pitch)
            for note in parts[0] + parts[1]
            for row in range(
                *(
                    int(Fraction(time, 97) / Fraction(step) + Fraction(1, 2))
                    for time in (note.start, note.end)
                )
            )
        }
        rolls[f"{i}.mid"] = rows
    path = prepare("mine", tmp_path, own(midi=folder, step=step))
    notes, record = load(path), record_of(path)
    assert (notes.step, record["step"]) == (Fraction(step), step)
    for split in SPLITS:
        for name, tune in zip(record["files"][split], notes.tunes(split), strict=True):
            steps, columns = np.nonzero(tune)
            assert set(zip(steps.tolist(), (columns + notes.lowest).tolist(), strict=True)) == rolls[name]


def test_identical_pieces_are_in_one_split_whatever_the_seed(tmp_path):
    folder = write(tmp_path / "music", 12)
    for seed in range(12):
        (folder / f"copy {seed}.mid").write_bytes(melody(seed))
        (folder / f"higher {seed}.mid").write_bytes(melody(seed, shift=5))
    divided = set()
    for seed in range(6):
        for any_key, group in ((False, 2), (True, 3)):
            path = prepare(
                "mine", tmp_path, own(midi=folder, seed=seed, any_key=any_key, split=[0.5, 0.25, 0.25])
            )
            record = record_of(path)
            split_of = {name: split for split in SPLITS for name in record["files"][split]}
            assert len(split_of) == 36
            assert Counter(map(len, record["duplicates"])) == {group: 12}
            for same in record["duplicates"]:
                assert len({split_of[name] for name in same}) == 1
            assert all(abs(len(record["files"][s]) - n) <= 2 for s, n in zip(SPLITS, (18, 9, 9), strict=True))
        divided.add(json.dumps(record["files"]))
    assert len(divided) == 6


def test_drums_are_left_out_unless_asked_for(tmp_path):
    folder = write(tmp_path / "music", 9)
    (folder / "drums.mid").write_bytes(melody(3, channel=9))
    record = record_of(prepare("mine", tmp_path, own(midi=folder)))
    assert list(record["skipped"]) == ["drums.mid"]
    assert "percussion does not count" in record["skipped"]["drums.mid"]
    record = record_of(prepare("mine", tmp_path, own(midi=folder, drums=True)))
    assert (record["summary"]["pieces"], record["skipped"]) == (10, {})


def test_what_cannot_be_read_is_named_and_skipped_up_to_a_share(tmp_path, capsys):
    folder = write(tmp_path / "music", 20)
    (folder / "empty.mid").touch()
    (folder / "text.mid").write_text("no music at all")
    os.mkfifo(folder / "fifo.mid")
    (folder / "nowhere.mid").symlink_to(folder / "gone")
    (folder / "half.mid").write_bytes(melody(1)[:40])
    arguments = ("prepare", "--corpus", "mine", "--midi", folder, "--data", tmp_path / "data")
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert "5 of 25 MIDI files cannot be used, more than the share of 0.1" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()
    assert run(*arguments, "--set", "may_skip=0.2") == 0
    said = capsys.readouterr().out
    for name in ("empty", "text", "fifo", "nowhere", "half"):
        assert f"skipped: {name}.mid: " in said
    assert "20 pieces, 240 steps of 1/2 quarter note, 240 notes from " in said
    assert "0 duplicates, each in the split of its original; 5 files skipped" in said


def test_a_folder_that_changed_is_prepared_again_and_one_that_is_gone_is_not(tmp_path):
    folder, definition = write(tmp_path / "music"), own(midi=tmp_path / "music")
    path = prepare("mine", tmp_path, definition)
    first = path.stat().st_mtime_ns
    prepare("mine", tmp_path, definition)
    assert path.stat().st_mtime_ns == first
    changes = (
        lambda: (folder / "new.mid").write_bytes(melody(99)),
        lambda: (folder / "new.mid").write_bytes(melody(98)),
        lambda: (folder / "new.mid").rename(folder / "newer.mid"),
        (folder / "newer.mid").unlink,
    )
    for change in changes:
        change()
        assert not is_current(path, definition)
        prepare("mine", tmp_path, definition)
        assert is_current(path, definition)
    assert not is_current(path, own(midi=folder, step="1/4"))
    shutil.rmtree(folder)
    assert is_current(path, definition)


# Texts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_like(tmp_path, end):
    text = end.join(["the cat sat", "", "the  dog\tsat", "a cat é"] * 5) + end
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    words = load(prepare("mine", tmp_path, own(text=tmp_path / "a.txt", split=[0.6, 0.2, 0.2])))
    assert words.vocabulary == ["the", "cat", "sat", "<eos>", "dog", "a", "é", "<unk>"]
    assert words.train[:9].tolist() == [0, 1, 2, 3, 3, 0, 4, 2, 3]
    assert [len(words.split(split)) for split in SPLITS] == [39, 13, 13]


def test_the_vocabulary_is_of_the_most_frequent_words_of_train(tmp_path):
    for name, text in {"train": "b b a a a c\n", "valid": "a d b\n", "test": "c a\n"}.items():
        (tmp_path / name).write_text(text)
    files = {split: str(tmp_path / split) for split in SPLITS}
    words = load(prepare("mine", tmp_path, own(text=files, vocabulary=4)))
    assert words.vocabulary == ["b", "a", "<unk>", "<eos>"]
    assert words.valid.tolist() == [1, 2, 0, 3]
    assert words.test.tolist() == [2, 1, 3]


def test_characters(tmp_path):
    (tmp_path / "a.txt").write_text("ab a\n" * 10)
    words = load(prepare("mine", tmp_path, own(text=tmp_path / "a.txt", unit="character")))
    assert words.vocabulary == ["a", "b", " ", "<eos>", "<unk>"]
    assert words.separator == ""


# What makes no corpus


@cache
def three_hours():
    return midi.write([[Note(60 + i % 9, i * 480, (i + 1) * 480) for i in range(3 * 60 * 120)]], 480)


@pytest.mark.parametrize(
    ("files", "keys", "reason"),
    [
        ({}, (), r"no MIDI files in it \(.mid, .*name the folder that holds them"),
        ({"a.txt": b"text"}, (), "no MIDI files in it"),
        ({f"{i}.mid": b"broken" for i in range(30)}, (), "30 of 30 MIDI files cannot be used"),
        ({f"{i}.mid": b"broken" for i in range(30)}, ("may_skip=1",), "30 of 30 MIDI .*; name a folder of others"),
        ({"a.mid": midi.write([[Note(60, 0, 480)]], 480)}, (), r"train would be empty|train and valid|\(1 pieces"),
        ({"a.mid": three_hours}, (), r"would be empty \(1 pieces"),
        ({"a.mid": three_hours}, ("step=1/64",), "1382400 steps of 15/2 ticks, more than 100000; divide it"),
        ({f"{i}.mid": melody(0) for i in range(200)}, (), r"would be empty \(200 pieces, 1 of them different"),
        ({f"{i}.mid": melody(i % 2) for i in range(20)}, (), r"would be empty \(20 pieces, 2 of them different"),
        ({f"{i}.mid": melody(i) for i in range(5)}, ("split=[1, 0, 0]",), r"split\.0 is 1: must be less than 1"),
        ({f"{i}.mid": melody(i) for i in range(5)}, ("step=0",), "must be a fraction of a quarter note"),
        ({f"{i}.mid": melody(i) for i in range(5)}, ("tempo=3",), r"unknown key own\.mine\.tempo"),
        ({f"{i}.mid": melody(i) for i in range(5)}, ("step",), "must be key=value"),
    ],
)  # fmt: skip
def test_a_folder_that_makes_no_corpus_is_one_line(tmp_path, capsys, files, keys, reason):
    (tmp_path / "music").mkdir()
    for name, content in files.items():
        (tmp_path / "music" / name).write_bytes(content() if callable(content) else content)
    options = [part for key in keys for part in ("--set", key)]
    place = ("--midi", tmp_path / "music", "--data", tmp_path / "data")
    assert run("prepare", "--corpus", "mine", *place, *options) == 2
    error = capsys.readouterr().err
    assert re.search(reason, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "keys", "reason"),
    [
        (b"caf\xe9 au lait\n", (), r"not UTF-8 \(byte 0xe9 at offset 3\)"),
        (b"", (), "empty"),
        (b" \n\n", (), "empty"),
        (b"one line", (), "would have no word"),
        (b"a\n\n\n\n\n\n\n\n\n\n\n\n", (), r"valid would have no word \(12 lines"),
        ("the cat sat\n".encode("utf-16-le") * 30, (), "holds the character NUL, as UTF-16"),
        (None, (), "no such file; name a text"),
        (b"a\nb\nc\n", ("vocabulary=2",), "vocabulary is 2"),
        (b"a\nb\nc\n", ("unit=line",), "unit is 'line': must be 'word' or 'character'"),
    ],
)
def test_a_text_that_makes_no_corpus_is_one_line(tmp_path, capsys, content, keys, reason):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    options = [part for key in keys for part in ("--set", key)]
    place = ("--text", tmp_path / "a.txt", "--data", tmp_path / "data")
    assert run("prepare", "--corpus", "mine", *place, *options) == 2
    error = capsys.readouterr().err
    assert re.search(reason, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_text_given_for_two_splits_is_refused(tmp_path, capsys):
    for name, content in {"a.txt": "a b\n", "b.txt": "b a\n", "copy.txt": "a b\n"}.items():
        (tmp_path / name).write_text(content)
    texts = [part for name in ("a.txt", "b.txt", "copy.txt") for part in ("--text", tmp_path / name)]
    assert run("prepare", "--corpus", "mine", *texts, "--data", tmp_path / "data") == 2
    assert "copy.txt: test is the same text as train; give each its own" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("own_corpus", [{"midi": "a\0"}, {"text": "a\0"}])
def test_a_path_that_cannot_be_is_refused(own_corpus):
    with pytest.raises(InputError, match="no path"):
        parse_own("mine", own_corpus)


def test_what_macos_puts_beside_files_is_no_music_and_odd_names_stay_on_one_line(tmp_path, capsys):
    folder = write(tmp_path / "music", 20)
    for name in [path.name for path in folder.rglob("*.mid")]:
        (folder / f"._{name}").write_bytes(b"\0\5\26\7")
    (folder / "two\nlines.mid").write_bytes(b"no music")
    assert run("prepare", "--corpus", "mine", "--midi", folder, "--data", tmp_path / "data") == 0
    out = capsys.readouterr().out
    assert "1 files skipped\n  skipped: two\\nlines.mid: not a valid" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ("--corpus", "ptb", "--midi", "x"),
            "own.ptb is 'ptb': the name of a corpus that comes with the project",
        ),
        (("--corpus", "words", "--midi", "x"), "the name of a kind of corpus"),
        (("--corpus", "a/b", "--midi", "x"), "not a corpus name"),
        (("--corpus", "../x", "--text", "x"), "not a corpus name"),
        (("--corpus", "mine", "--midi", "x", "--text", "y"), "one of the two"),
        (("--corpus", "mine", "--text", "x", "--text", "y"), "--text is given 2 times"),
        (("--corpus", "mine", "--midi", ""), "own.mine.midi is '': no path"),
        (("--corpus", "mine", "--text", ""), "own.mine.text is '': (no path|must be a file)"),
        (("--corpus", "two\nlines", "--midi", "x"), r"--corpus two\\nlines: .* not a corpus name"),
        (("--corpus", "mine", "--midi", "two\nlines"), r"two\\nlines: cannot be searched"),
        (("--corpus", "mine", "--midi", "missing"), "missing: cannot be searched"),
        (("--corpus", "mine", "--midi", "/dev/null"), "/dev/null: cannot be searched"),
        (("--corpus", "mine"), "corpus 'mine': unknown; one of ptb, .*, or one of your own"),
        (("--corpus", "ptb", "--set", "step=1"), "ptb is not a corpus of your own"),
    ],
)
def test_names_and_options_that_cannot_be_are_one_line(tmp_path, capsys, arguments, reason):
    assert run("prepare", *arguments, "--data", tmp_path / "data") == 2
    error = capsys.readouterr().err
    assert re.search(reason, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("own_corpora", "corpora", "reason"),
    [
        (
            {"ptb": {"midi": "x"}},
            ["ptb"],
            "own.ptb is 'ptb': the name of a corpus that comes with the project",
        ),
        ({"notes": {"midi": "x"}}, None, "own.notes is 'notes': the name of a kind of corpus"),
        ({"my tunes": {"midi": "x"}}, None, "own.my tunes is 'my tunes': not a corpus name"),
        ({1: {"midi": "x"}}, None, "own.1 is 1: must be a valid string"),
        ({"a": {"midi": "x"}, "A": {"midi": "y"}}, None, "must differ in more than upper and lower case"),
        ({"a": {}}, None, "own.a: must have midi: a folder, or text: a file or three"),
        ({"a": "folder"}, None, "own.a is 'folder': must have midi"),
        ({"a": {"midi": "x", "text": "y"}}, None, "unknown key own.a.text"),
        ({"a": {"midi": "x", "step": 0.5}}, None, "own.a.step is 0.5: must be a fraction of a quarter note"),
        ({"a": {"midi": "x", "split": [0.9, 0.1, 0.1]}}, None, "own.a.split is .*: must add up to 1"),
        ({"a": {"text": {"train": "x"}}}, None, "own.a.text: must be a file, or three"),
        (
            {"a": {"text": {s: "x" for s in SPLITS}, "split": [0.8, 0.1, 0.1]}},
            None,
            "split is for a text in one file",
        ),
        ({"a": {"midi": "x"}}, ["b"], "corpora.0 is 'b': must be one of ptb, .*, a, or be defined under own"),
    ],
)
def test_definitions_that_cannot_be_are_one_line(own_corpora, corpora, reason):
    values = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"own": own_corpora, "corpora": corpora}
    with pytest.raises(InputError, match=reason) as caught:
        parse_params(values)
    assert "\n" not in str(caught.value)


# By hand


@pytest.mark.parametrize("kind", ["midi", "text"])
def test_prepared_trained_sampled_and_evaluated_by_hand(tmp_path, capsys, monkeypatch, kind):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write(tmp_path / "music", 30)
    (tmp_path / "a.txt").write_text("the cat sat\nthe dog ran\n" * 300)
    monkeypatch.chdir(tmp_path)
    source = {
        "midi": ("--midi", "music", "--set", "step=1/3"),
        "text": ("--text", "a.txt", "--set", "unit=character"),
    }
    assert run("prepare", "--corpus", "mine", *source[kind]) == 0
    small = [x for key in ("model.hidden_size=8", "training.epochs=1") for x in ("--set", key)]
    train = ("train", "--corpus", "mine", "--method", "constraint", "--value", 0.5, "--seeds", 0, *small)
    assert run(*train) == 0, capsys.readouterr().err
    folder = "results/quick/runs/mine/constraint-0.5/seed-0"
    assert run("evaluate", folder) == 0
    capsys.readouterr()
    trained, samples = {"constraint": open_run(Path(folder), Path("data"))}, Samples(Path("samples"))
    if kind == "midi":
        corpus = trained["constraint"].corpus
        corpus.test[: corpus.test_lengths[0]] = 0  # a rest of many bars
        _write_music(samples, "mine", trained)
        assert samples.links[0]["text"].startswith("mine test 1, original")
        corpus.test[:] = 0
        _write_music(samples, "mine", trained)
        assert samples.answer[-1] == "mine: every test tune begins with silence, so none is continued."
        assert run("sample", "--run", folder, "--out", "a.mid") == 0
        score = mido.MidiFile("a.mid")
        assert score.ticks_per_beat == 480
        assert {m.time % 160 for m in score.tracks[0]} == {0}
        tempo = next(m.tempo for m in score.tracks[0] if m.type == "set_tempo")
        assert round(mido.tempo2bpm(tempo)) == 91
    else:
        _write_words(samples, "mine", trained)
        assert all(text["prompt"] in ("the ", "the") for text in samples.texts)
        capsys.readouterr()
        assert run("sample", "--run", folder, "--prompt", "the c") == 0
        assert re.match(r"the c[acdeghnorst \n]+|the c.*<unk>", capsys.readouterr().out)
