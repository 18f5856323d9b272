"""A run is believed only while each of its files is what its training wrote."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results_records import make_run, reseal
from spectralgru.errors import InputError
from spectralgru.files import write_json
from spectralgru.pipeline.experiments.base import is_made
from spectralgru.pipeline.provenance.record import _run
from spectralgru.pipeline.results.load import load_runs
from spectralgru.pipeline.saved import load_model
from spectralgru.records import RUN_FILES, Run, check_files, is_finished, read_run
from spectralgru.seal import sealed_json
from spectralgru.setting import Setting

SETTING = Setting("constraint", 0.2)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_run(tmp_path, "ptb", *SETTING, 0)


def believers(directory: Path) -> set[str]:
    """Who takes the run for what it was when it was written."""
    key = "0" * 60 + str(sum(map(ord, "ptbconstraint0.2")))
    root = directory.parents[3]
    found = {"finished"} if is_finished(directory, key) else set()
    for name, read in {
        "results": lambda: load_runs(root, "ptb", [SETTING], [0], "quick"),
        "provenance": lambda: _run(directory),
        "model": lambda: check_files(directory, read_run(directory), ["model.safetensors"]),
    }.items():
        with suppress(InputError):
            read()
            found.add(name)
    return found


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    date = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(date, date))  # neither size nor date shows it


DAMAGE = {"deleted": Path.unlink, "halved": halve, "flipped": flip, "emptied": lambda p: p.write_bytes(b"")}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", [*RUN_FILES, "run.json"])
def test_a_damaged_file_is_believed_by_nobody_who_reads_it(directory: Path, name: str, how: str):
    assert believers(directory) == {"finished", "results", "provenance", "model"}
    DAMAGE[how](directory / name)
    # A run whose model lies elsewhere is known by the model's hash; one whose model is another is not.
    untouched = {"model.safetensors": {"results", "provenance"} if how == "deleted" else {"results"}}
    assert believers(directory) == untouched.get(name, set() if name == "run.json" else {"model"})


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bit_of_a_record_can_change_unseen(directory: Path, at: int, bit: int):
    path = directory / "run.json"
    whole = path.read_bytes()
    run, damaged = read_run(directory), bytearray(whole)
    damaged[at % len(whole)] ^= 1 << bit
    path.write_bytes(damaged)
    with suppress(InputError):
        assert read_run(directory) == run  # a blank between two values
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"best": {"epoch": 1, "valid": 1.0}},
        {"status": "diverged"},
        {"files": {}},
        {"seed": 1},
        {"host": "other"},
    ],
)
def test_an_edited_record_is_refused(directory: Path, change: dict):
    record = json.loads((directory / "run.json").read_text())
    write_json(directory / "run.json", record | change)
    with pytest.raises(InputError, match="edited"):
        read_run(directory)
    del record["sha256"]
    write_json(directory / "run.json", record)
    with pytest.raises(InputError, match="edited"):
        read_run(directory)


def test_a_record_from_before_there_were_hashes_is_read_and_not_taken_for_finished(directory: Path):
    record = json.loads((directory / "run.json").read_text())
    key = record["key"]
    assert is_finished(directory, key)
    write_json(directory / "run.json", {k: v for k, v in record.items() if k not in ("sha256", "files")})
    assert isinstance(read_run(directory), Run)
    assert len(load_runs(directory.parents[3], "ptb", [SETTING], [0], "quick")) == 1
    assert not is_finished(directory, key)


@pytest.mark.parametrize("change", ["", "perplexity", "edited", "unsealed"])
def test_a_record_sealed_by_its_content_is_read_and_refused_if_edited(tmp_path: Path, change: str):
    record = dict(corpus="ptb", method="constraint", value=0.2, seed=0, scale="quick", status="finished")
    record |= dict(metric="perplexity", best={"epoch": 3.0, "valid": 170.25}, final={}, diverged=None)
    record |= dict(spectrum={}, settings={}, key="k", data_sha256="", git_commit="", versions={}, host="")
    record |= dict(device="", threads=1, started="", wall_seconds=0.0, replicas=1)
    record |= {"files": dict.fromkeys(["history.csv", "steps.csv", "model.safetensors"], "ab" * 32)}
    # As version 0.2.0 wrote it.
    record["sha256"] = "10ff07fb02bae092e05468d7210f6e8f093dd3a7701f90a6b91fc811d3cd439e"
    if change == "perplexity":
        record["best"]["valid"] = 170.0
    elif change == "edited":
        record["sha256"] = record["sha256"][::-1]
    elif change == "unsealed":
        del record["sha256"]
    write_json(tmp_path / "run.json", record)
    if change:
        with pytest.raises(InputError, match="edited"):
            read_run(tmp_path)
    else:
        assert read_run(tmp_path).best == {"epoch": 3.0, "valid": 170.25}


@pytest.mark.parametrize(
    "other", ["ptb/constraint-0.2/seed-7", "ptb/clipping-0.2/seed-0", "x/constraint-0.2/seed-0"]
)
def test_a_record_in_the_place_of_another_run_is_refused(directory: Path, other: str):
    place = directory.parents[2] / other
    shutil.copytree(directory, place)
    with pytest.raises(InputError, match="it belongs to ptb"):
        read_run(place)
    aside = shutil.copytree(directory, directory.parents[3] / "aside")
    assert read_run(aside) == read_run(directory)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best", [1]),
        ("best", {"valid": "1"}),
        ("final", {"valid": None}),
        ("spectrum", {"initial": 3}),
        ("settings", []),
        ("diverged", 5),
        ("value", "0.2"),
        ("seed", True),
        ("status", ["finished"]),
        ("started", 3),
    ],
)
def test_a_record_without_hashes_is_read_by_its_types(directory: Path, name: str, value: object):
    record = json.loads((directory / "run.json").read_text())
    old = {k: v for k, v in record.items() if k not in ("sha256", "files")}
    write_json(directory / "run.json", old | {name: value})
    with pytest.raises(InputError, match=f"{name} is "):
        read_run(directory)


def test_a_model_of_another_run_is_not_loaded(directory: Path, tmp_path: Path):
    other = make_run(tmp_path / "other", "ptb", *SETTING, 1)
    (other / "model.safetensors").replace(directory / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: damaged or edited"):
        load_model(directory)
    reseal(directory)
    with pytest.raises(InputError, match="no model of this run can be read"):
        load_model(directory)


@pytest.mark.parametrize("name", [*RUN_FILES, "run.json"])
def test_a_part_of_an_experiment_is_made_only_while_its_runs_are_whole(
    directory: Path, tmp_path: Path, name: str
):
    record, run = tmp_path / "part.json", directory.relative_to(tmp_path) / "run.json"
    record.write_text(sealed_json({"key": "k", "files": [run.as_posix()]}))
    assert is_made(record, "k", tmp_path)
    flip(directory / name)
    assert not is_made(record, "k", tmp_path)
