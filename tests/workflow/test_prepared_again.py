"""A corpus is prepared again when the way of preparing it has changed, and never because of a date."""

import json
import os

from spectralgru.pipeline.corpora import midi
from spectralgru.pipeline.corpora.recipe import RECIPE


def test_a_corpus_of_another_recipe_is_prepared_again(project):
    arrays, record = (project.folder / f"data/prepared/ptb.{suffix}" for suffix in ("npz", "json"))
    content = arrays.read_bytes()
    for path in (arrays, record):
        os.utime(path, (1e9, 1e9))  # older than the code, as in a clone made later
    assert "prepare_corpus" not in project.planned()

    record.write_text(json.dumps(json.loads(record.read_text()) | {"recipe": RECIPE - 1}))
    jobs = project.planned()
    assert jobs["prepare_corpus"] == {"corpus=ptb"}
    assert len(jobs["train_setting"]) == 3
    code, output = project.run("data/prepared/ptb.npz")
    assert code == 0, output
    assert json.loads(record.read_text())["recipe"] == RECIPE
    assert arrays.read_bytes() == content
    assert "prepare_corpus" not in project.planned()


def test_an_own_corpus_follows_its_folder(project):
    """New, changed and renamed files are seen before anything is planned, and so is a folder that makes no corpus."""
    folder, arrays = project.folder / "music", project.folder / "data/prepared/tunes.npz"
    folder.mkdir()
    for i in range(12):
        notes = [midi.Note(50 + (i * k) % 11, k * 240, (k + 1) * 240) for k in range(1, 20)]
        (folder / f"{i}.mid").write_bytes(midi.write([notes], 480))
    project.values |= {"own": {"tunes": {"midi": "music", "step": "1/4"}}, "corpora": ["tunes"]}
    project.write_params()
    code, output = project.run("prepare_all")
    assert code == 0, output
    assert "prepare_corpus" not in project.planned()
    first = arrays.read_bytes()
    (folder / "0.mid").rename(folder / "twelve.mid")
    jobs = project.planned()
    assert jobs["prepare_corpus"] == {"corpus=tunes"}
    assert len(jobs["train_setting"]) == 10
    code, output = project.run("prepare_all")
    assert code == 0, output
    assert "prepare_corpus" not in project.planned()
    assert arrays.read_bytes() != first
    for path in folder.iterdir():
        path.unlink()
    code, output = project.run("-n")
    assert code == 2
    assert output.splitlines()[-1].startswith("spectralgru: music: no MIDI files in it")
    folder.rmdir()
    assert "prepare_corpus" not in project.planned()
