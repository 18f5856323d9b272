"""`spectralgru autopsy`: a file in, words and a figure out."""

import pickle

import pytest
import torch
from planted import scaled, trained

from spectralgru.pipeline.cli import main

TRAIN = """
from planted import Net

def make():
    return Net("GRU"), lambda output, target: (output - target).square().mean()

def alone():
    return Net("GRU")

def number():
    return 3

def broken():
    raise KeyError("no corpus")

def ends():
    raise SystemExit

def two_lines():
    raise ValueError("one\\ntwo")

def bad_loss():
    return Net("GRU"), lambda output, target: 1 / 0
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("explosions"), "GRU", scaled(2, 20.0))[2].files[0]


@pytest.fixture
def called(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["spectralgru", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


def test_it_says_why_and_draws(called, recording):
    code, out, err = called("autopsy", recording)
    assert (code, err) == (0, "")
    assert "cause: candidate (rnn.weight_hh_l0)" in out
    assert "a tenth of the learning rate" in out
    assert "loss after" not in out
    assert f"figure: {recording.with_suffix('.svg')}" in out
    assert "<svg" in recording.with_suffix(".svg").read_text()


@pytest.mark.parametrize(("function", "has_loss"), [("make", True), ("alone", False)])
def test_with_the_model_its_loss_is_there_too(called, recording, tmp_path, function, has_loss):
    (tmp_path / "train.py").write_text(TRAIN)
    words = ("--model", f"{tmp_path}/train.py:{function}", "--figure", tmp_path / "why.png")
    code, out, err = called("autopsy", recording, *words)
    assert (code, err) == (0, "")
    assert ("loss after" in out) == has_loss
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.pt"], "nowhere.pt: No such file or directory"),
        (["{folder}/train.py"], "not a recording, or a damaged one"),
        (["{recording}", "--model", "make"], "--model make: expected MODULE:FUNCTION"),
        (["{recording}", "--model", "{folder}/train.py:other"], "has no attribute 'other'"),
        (["{recording}", "--model", "{folder}/train.py:number"], "returned a int; expected a model"),
        (["{recording}", "--model", "{folder}/train.py:broken"], "KeyError: 'no corpus'"),
        (["{recording}", "--model", "{folder}/train.py:ends"], "train.py:ends: SystemExit"),
        (["{recording}", "--model", "{folder}/train.py:two_lines"], "ValueError: one\\ntwo"),
        (["{recording}", "--model", "{folder}/train.py:bad_loss"], "bad_loss on the batch of "),
        (["{recording}", "--model", ""], "--model : expected MODULE:FUNCTION"),
        (["{folder}"], "not a file"),
        (["/dev/zero"], "not a file"),
        (["{recording}", "--model", "no_such_module:make"], "No module named 'no_such_module'"),
        (["{recording}", "--delta", "7"], "delta=7.0: must be"),
        (["{recording}", "--gates", "-1"], "gates=-1.0: must be"),
        (["{recording}", "--figure", "{folder}/why.tune"], "why.tune"),
    ],
)
def test_bad_input_is_one_line(called, recording, tmp_path, words, message):
    (tmp_path / "train.py").write_text(TRAIN)
    words = [word.format(folder=tmp_path, recording=recording) for word in words]
    code, _, err = called("autopsy", *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_recording_that_does_not_fit_itself_is_refused(called, recording, tmp_path):
    content = torch.load(recording, weights_only=True)
    content["calls"][0]["x"] = content["calls"][0]["x"][..., :2]
    torch.save(content, tmp_path / "cut.pt")
    code, _, err = called("autopsy", tmp_path / "cut.pt")
    assert code == 2
    assert "do not fit" in err


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("version", torch.ones(2), "its version is tensor"),
        ("ring", [], "a damaged recording"),
        ("names", [], "a damaged recording"),
        ("seeds", [], "a damaged recording"),
    ],
)
def test_a_recording_without_a_part_is_damaged(called, recording, tmp_path, part, value, message):
    torch.save(torch.load(recording, weights_only=True) | {part: value}, tmp_path / "damaged.pt")
    code, out, err = called("autopsy", tmp_path / "damaged.pt")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_code_in_a_file_is_not_run_nor_warned_of(called, tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "code.pt").write_bytes(pickle.dumps(Code()))
    code, out, err = called("autopsy", tmp_path / "code.pt")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "not a recording" in err
