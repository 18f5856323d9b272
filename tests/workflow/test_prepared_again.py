"""A corpus is prepared again when the way of preparing changed, and never because of a date."""

import json
import os

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
