"""Continuations: what is drawn follows the model, and what goes wrong is reported."""

import base64
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import tiny
from results_records import reseal
from spectralgru.errors import InputError
from spectralgru.files import sha256, write_json
from spectralgru.pipeline import cli
from spectralgru.pipeline.corpora import midi, pianoroll
from spectralgru.pipeline.report.parts import sections
from spectralgru.pipeline.results.load import Campaign, load_runs
from spectralgru.pipeline.sampling.audio import to_mp3
from spectralgru.pipeline.sampling.campaign import best, write_samples
from spectralgru.pipeline.sampling.continuation import CHUNK, continue_notes, continue_words
from spectralgru.pipeline.sampling.dates import made_of
from spectralgru.pipeline.sampling.sample import original, sample, sample_text, sample_tune
from spectralgru.pipeline.sampling.text import decode, encode
from spectralgru.pipeline.sampling.trained import open_run
from spectralgru.pipeline.summary import is_current
from spectralgru.records import read_run
from spectralgru.setting import Setting
from spectralgru.training.data.dataset import load
from spectralgru.training.train import train

VALUES = (Setting("constraint", 0.2), Setting("constraint", 1.4), Setting("clipping", 5.0))
REPLICAS = {
    "ptb": tuple(tiny.replica(method, value, seed, 0.3) for method, value in VALUES for seed in (0, 1)),
    "chorales": tuple(tiny.replica(method, value, seed, 0.05) for method, value in VALUES for seed in (0, 1)),
}
CORPORA = {corpus: list(VALUES) for corpus in REPLICAS}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    tiny.write_corpora(folder)
    return folder


@pytest.fixture(scope="module")
def root(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for corpus, replicas in REPLICAS.items():
        job = tiny.job(corpus, replicas, epochs=2)
        places = (data / "prepared" / f"{corpus}.npz", folder / "results", folder / "checkpoints")
        train(job, *places, say=lambda *_: None)
    return folder / "results"


def run_of(root: Path, corpus: str) -> Path:
    return root / "runs" / corpus / "constraint-0.2" / "seed-0"


@pytest.fixture(scope="module")
def music(root, data):
    return open_run(run_of(root, "chorales"), data)


@pytest.fixture(scope="module")
def words(root, data):
    return open_run(run_of(root, "ptb"), data)


def logits_of(model, inputs: torch.Tensor) -> np.ndarray:
    """In one go, without carrying a state by hand."""
    with torch.no_grad():
        read, _ = model(inputs, model.initial_state(1))
        return model.logits(read)[0, :, 0].double().numpy()


def test_notes_follow_from_all_that_came_before(music):
    rng = np.random.default_rng(1)
    beginning = (rng.random((2 * CHUNK + 7, 9)) < 0.3).astype(np.uint8)
    sampled = continue_notes(music.model, beginning, 30, 1.0, np.random.default_rng(5))
    whole = np.concatenate([np.zeros((1, 9)), beginning, sampled])
    logits = logits_of(music.model, torch.from_numpy(whole).float()[None, :, None])
    draws = np.random.default_rng(5)
    for step in range(30):
        probability = 1 / (1 + np.exp(-logits[len(beginning) + step]))
        u = draws.random(9)
        clear = abs(u - probability) > 1e-5
        np.testing.assert_array_equal(sampled[step][clear], (u < probability)[clear])


def test_words_follow_from_all_that_came_before(words):
    beginning = np.random.default_rng(1).integers(0, 18, 2 * CHUNK + 7).tolist()
    sampled = continue_words(words.model, beginning, 30, 1e-6, np.random.default_rng(0))
    logits = logits_of(words.model, torch.tensor(beginning + sampled)[:, None])
    assert sampled == logits[len(beginning) - 1 : -1].argmax(axis=1).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_are_the_probabilities(music, words, temperature):
    draws = 1000
    rng = np.random.default_rng(0)
    tokens = [continue_words(words.model, [0, 3], 1, temperature, rng)[0] for _ in range(draws)]
    scaled = logits_of(words.model, torch.tensor([[0], [3]]))[-1] / temperature
    expected = np.exp(scaled) / np.exp(scaled).sum()
    beginning = np.eye(9, dtype=np.uint8)[:4]
    notes = [continue_notes(music.model, beginning, 1, temperature, rng)[0] for _ in range(draws)]
    inputs = torch.from_numpy(np.concatenate([np.zeros((1, 9)), beginning])).float()[None, :, None]
    rates = 1 / (1 + np.exp(-logits_of(music.model, inputs)[-1] / temperature))
    for seen, p in (
        (np.bincount(tokens, minlength=len(expected)) / draws, expected),
        (np.mean(notes, axis=0), rates),
    ):
        assert (abs(seen - p) < 5 * np.sqrt(p * (1 - p) / draws) + 1e-3).all()


@pytest.mark.parametrize("temperature", [1e-300, 1e300])
def test_extreme_temperatures_are_numbers_too(music, words, temperature):
    rng = np.random.default_rng(0)
    assert continue_notes(music.model, np.ones((2, 9), np.uint8), 5, temperature, rng).shape == (5, 9)
    assert len(continue_words(words.model, [0], 5, temperature, rng)) == 5


def test_a_tune_begins_with_its_first_bars(music, data):
    tunes = load(data / "prepared/chorales.npz").tunes("valid")
    for number, tune in enumerate(tunes):
        made = sample_tune(music, "valid", number, 10, 1.0, 0)
        assert made.begins == min(32, len(tune) // 2)
        assert made.roll.shape == (made.begins + 10, 9)
        np.testing.assert_array_equal(made.roll[: made.begins], tune[: made.begins])
        np.testing.assert_array_equal(original(music, "valid", number, 999).roll, tune)


def test_the_seed_decides(music, words):
    tunes = [sample(music, "test", 0, None, 40, 1.0, seed).midi() for seed in (0, 0, 1)]
    texts = [str(sample(words, "test", None, "w3 w4", None, 1.0, seed)) for seed in (0, 0, 1)]
    for first, again, other in (tunes, texts):
        assert first == again != other


def test_text_is_read_and_written_as_the_corpus_is(words):
    vocabulary = words.corpus.vocabulary
    assert encode(" w1 w2\nw3", vocabulary) == [
        vocabulary.index(w) for w in ["<eos>", "w1", "w2", "<eos>", "w3"]
    ]
    assert decode(encode("w1 w2\nw3", vocabulary), vocabulary) == "\nw1 w2\nw3"
    text = sample_text(words, "w1 w2", 50, 1.0, 0)
    assert text.prompt == "w1 w2"
    assert len(text.continuation.replace("\n", " <eos> ").split()) == 50
    assert encode(str(text), vocabulary) == list(text.ids)


@pytest.mark.parametrize(
    ("corpus", "options", "said"),
    [
        ("chorales", ["--temperature", "0"], "temperature is 0: a number above 0"),
        ("chorales", ["--temperature", "-1"], "temperature is -1"),
        ("chorales", ["--temperature", "nan"], "temperature is nan"),
        ("ptb", ["--temperature", "inf"], "temperature is inf"),
        ("chorales", ["--steps", "0"], "steps is 0"),
        ("ptb", ["--steps", "-3"], "steps is -3"),
        ("chorales", ["--steps", str(10**12)], "at most 100000"),
        ("chorales", ["--tune", "6"], "tune 6: chorales has tunes 0 to 5 in test"),
        ("chorales", ["--tune", "-1"], "tune -1: chorales has tunes 0 to 5 in test"),
        ("chorales", ["--prompt", "w1"], "chorales has tunes, not words; give --tune"),
        ("ptb", ["--tune", "0"], "ptb has words, not tunes; give --prompt"),
        ("ptb", ["--tune", "0", "--prompt", "w1"], "one of the two"),
        ("ptb", ["--prompt", "w1 zebra"], "'zebra' is not among the 18 words that the model knows; choose"),
        (
            "ptb",
            ["--prompt", "W1"],
            "'W1' is not among the 18 words that the model knows; write 'w1', or <unk>",
        ),
        ("none", [], "no such run; train it first"),
        ("ptb", ["--audio"], "--audio: ptb has words"),
        ("chorales", ["--audio", "--out", "tune.mp3"], "--out tune.mp3: must end in .mid"),
        ("chorales", ["--audio", "--out", "."], "--out .: must end in .mid"),
        ("chorales", ["--audio", "--out", "/dev/null"], "--out /dev/null: must end in .mid"),
        ("chorales", ["--audio", "--steps", "5000"], "21 minutes long, and at most 20 are turned into sound"),
    ],
)
def test_bad_input_is_one_clear_line(root, data, monkeypatch, capsys, tmp_path, corpus, options, said):
    monkeypatch.chdir(tmp_path)
    code, output, error = command(monkeypatch, capsys, root, data, corpus, *options)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not output
    assert not list(tmp_path.iterdir())


def command(monkeypatch, capsys, root, data, corpus, *options) -> tuple[int, str, str]:
    run = str(run_of(root, corpus))
    return called(monkeypatch, capsys, "sample", "--run", run, "--data", str(data), *options)


def called(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["spectralgru", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    printed = capsys.readouterr()
    return left.value.code or 0, printed.out, printed.err


def test_on_the_command_line(root, data, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, capsys, root, data, "chorales", "--steps", "9")[0] == 0
    content = (tmp_path / "sample.mid").read_bytes()
    assert content == sample_tune(open_run(run_of(root, "chorales"), data), "test", 0, 9, 1.0, 0).midi()
    code, output, _ = command(
        monkeypatch, capsys, root, data, "chorales", "--steps", "9", "--out", "a.mid", "--audio"
    )
    assert code == 0
    assert [line.split(":")[0] for line in output.splitlines()] == ["a.mid", "a.mp3"]
    assert (tmp_path / "a.mid").read_bytes() == content
    assert (tmp_path / "a.mp3").read_bytes() == to_mp3(content)
    (tmp_path / "b.mp3").mkdir()
    code, output, error = command(
        monkeypatch, capsys, root, data, "chorales", "--steps", "9", "--out", "b.mid", "--audio"
    )
    assert (code, output) == (2, "")
    assert error.startswith("spectralgru: b.mp3: cannot be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "a.mp3", "b.mp3", "sample.mid"]
    code, output, _ = command(monkeypatch, capsys, root, data, "ptb", "--prompt", "w1", "--out", "text.txt")
    assert code == 0
    assert output.startswith("w1 ")
    assert (tmp_path / "text.txt").read_text() == output


@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
@pytest.mark.parametrize("out", ["folder", "file/below", "/proc/none"])
def test_a_place_that_cannot_be_written_is_one_clear_line(
    root, data, monkeypatch, capsys, tmp_path, corpus, out
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    code, _, error = command(monkeypatch, capsys, root, data, corpus, "--steps", "2", "--out", out)
    assert code == 2
    assert f"{out}: cannot be written" in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.rglob("*")} == {"folder", "file"}


WITHOUT_MIDO = """
import sys
sys.modules["mido"] = None
from spectralgru.pipeline.cli import main
_, data, *runs = sys.argv
for run in runs:
    sys.argv = ["spectralgru", "sample", "--data", data, "--run", run]
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code or 0, file=sys.stderr)
"""


def test_mido_is_needed_for_music_only(root, data):
    runs = [str(run_of(root, corpus)) for corpus in ("ptb", "chorales")]
    run = [sys.executable, "-c", WITHOUT_MIDO, str(data), *runs]
    said = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True).stderr
    words, _, music = said.partition("exit code 0\n")
    assert words == ""
    assert "pip install mido" in music
    assert music.endswith("exit code 1\n")


def damage(weights: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    if what == "hidden":  # of more hidden units
        return weights | {"gru.weight_hh_l0": np.zeros((39, 13), np.float32)}
    if what == "words":  # of a smaller vocabulary
        return {name: w[:-1] if name.startswith(("input.", "output.")) else w for name, w in weights.items()}
    return {name: w for name, w in weights.items() if name != "gru.weight_ih_l0"}


@pytest.mark.parametrize("what", ["missing", "not one", "truncated", "folder", "hidden", "words", "key"])
@pytest.mark.parametrize("verb", ["evaluate", "sample"])
def test_an_unusable_model_is_one_clear_line(root, data, monkeypatch, capsys, tmp_path, what, verb):
    good, file = run_of(root, "ptb"), tmp_path / "model.safetensors"
    shutil.copy(good / "run.json", tmp_path)
    if what == "folder":
        file.mkdir()
    elif what == "not one":
        file.write_bytes(b"not one")
    elif what == "truncated":
        file.write_bytes((good / file.name).read_bytes()[:-100])
    elif what != "missing":
        save_file(damage(load_file(good / file.name), what), file)
        reseal(tmp_path)
    arguments = [verb, *(["--run"] if verb == "sample" else []), str(tmp_path), "--data", str(data)]
    code, output, error = called(monkeypatch, capsys, *arguments)
    assert code == 2
    said = {
        "words": "a model of 17 words, but ptb has 18",
        "hidden": "no model of this run can be read",
        "key": "no model of this run can be read",
        "missing": "cannot be read (No such file",
        "folder": "cannot be read (Is a directory",
    }.get(what, "damaged or edited")
    assert f"{file}: {said}" in error
    assert error.count("\n") == 1
    assert not output


def test_a_run_that_does_not_fit_is_refused(root, data, tmp_path):
    directory = tmp_path / "seed-0"
    directory.mkdir()
    (directory / "run.json").write_bytes((run_of(root, "ptb") / "run.json").read_bytes())
    weights = open_run(run_of(root, "ptb"), data).model.weights_of(0)
    weights["gru.weight_hh_l0"][3, 4] = np.nan
    save_file({name: w.numpy() for name, w in weights.items()}, directory / "model.safetensors")
    reseal(directory)
    with pytest.raises(InputError, match=r"gru.weight_hh_l0 is not finite.*choose a run that finished"):
        open_run(directory, data)
    with pytest.raises(InputError, match=r"chorales\.json: no such file"):
        open_run(run_of(root, "chorales"), tmp_path)
    other = tmp_path / "data" / "prepared"
    shutil.copytree(data / "prepared", other)
    arrays = dict(np.load(other / "chorales.npz"))
    arrays["test"][0] ^= 1
    np.savez(other / "chorales.npz", **arrays)
    record = json.loads((other / "chorales.json").read_text())
    write_json(other / "chorales.json", record | {"sha256": sha256(other / "chorales.npz")})
    with pytest.raises(InputError, match=r"trained on data .* but .* holds"):
        open_run(run_of(root, "chorales"), tmp_path / "data")


@pytest.fixture(scope="module")
def written(root, data) -> Path:
    write_samples(Campaign.load(root, CORPORA, (0, 1), "test"), data)
    return root / "samples"


def test_samples_are_what_the_report_shows(written, root):
    (section,) = (s for s in sections(root) if s.id == "samples")
    assert len(section.figures) == 1
    assert section.figures[0].source.startswith("data:image/svg+xml")
    assert [attachment.name for attachment in section.attachments] == [
        "ptb.txt",
        "chorales-original.mid",
        "chorales-constraint.mid",
        "chorales-clipping.mid",
    ]
    assert [sound.title.split(", ")[1][:4] for sound in section.sounds] == ["orig", "δ = ", "clip"]
    for sound, name in zip(section.sounds, ("original", "constraint", "clipping"), strict=True):
        content = (written / f"chorales-{name}.mp3").read_bytes()
        assert base64.b64decode(sound.source.removeprefix("data:audio/mpeg;base64,")) == content
    summary = json.loads((written / "summary.json").read_text())
    assert {path.name for path in written.iterdir()} == {*summary["files"], "summary.json"}
    assert len(summary["texts"]) == 6
    text = (written / "ptb.txt").read_text()
    for one in summary["texts"]:
        assert f"{one['title']}\n{one['prompt']} | {one['continuation']}\n" in text
    assert "continued for 64 steps" in " ".join(section.answer)


def test_samples_come_from_the_best_runs_on_validation(written, root, data):
    runs = load_runs(root, "chorales", VALUES, (0, 1), "test")
    constrained = [items for setting, items in runs.items() if setting.method == "constraint"]
    finished = [item for items in constrained for item in items if item.run.status == "finished"]
    means = {
        value: np.mean([item.run.best["valid"] for item in finished if item.run.value == value])
        for value in {item.run.value for item in finished}
    }
    mine = [item for item in finished if item.run.value == min(means, key=means.get)]
    directory = min(mine, key=lambda item: item.run.best["valid"]).directory
    tune = sample_tune(open_run(directory, data), "test", 0, 64, 1.0, 0)
    assert (written / "chorales-constraint.mid").read_bytes() == tune.midi()
    rolls = [
        pianoroll.roll(midi.read((written / f"chorales-{name}.mid").read_bytes(), name).notes, 240, name)
        for name in ("original", "constraint", "clipping")
    ]
    for roll in rolls:
        np.testing.assert_array_equal(roll[: tune.begins, 30:39], tune.roll[: tune.begins])


def test_the_best_setting_on_average_then_its_best_run(root):
    made = load_runs(root, "chorales", VALUES, (0, 1), "test")
    valid = iter([3.0, 1.0, 1.5, 1.9, 0.1, 0.2])  # two runs of each of VALUES
    for item in (item for items in made.values() for item in items):
        item.run.best["valid"] = item.run.final["valid"] = next(valid)
    assert best({setting: made[setting] for setting in VALUES[:2]}, "clipping") is None

    def ended(status, items):
        return [replace(item, run=replace(item.run, status=status)) for item in items]

    constrained = {setting: ended("finished", items) for setting, items in made.items()}
    second = constrained[VALUES[1]]
    assert best(constrained, "constraint").run == second[0].run
    constrained[VALUES[1]] = [*ended("diverged", second[:1]), second[1]]
    assert best(constrained, "constraint").run == second[1].run


def test_samples_know_what_they_are_made_of(written, root):
    keys = {
        path.relative_to(root).as_posix(): read_run(path).key
        for corpus in CORPORA
        for path in (root / "runs" / corpus).glob("*/seed-*")
    }
    assert is_current(written, made_of(keys))
    before = {path: path.read_bytes() for path in written.iterdir()}
    assert is_current(written, made_of(keys | {"runs/ptb/none/seed-0": "ignored: not sampled from"}))
    assert not is_current(written, made_of(keys | {"runs/ptb/clipping-9/seed-0": "another"}))
    assert not is_current(written, made_of({path: f"{key}x" for path, key in keys.items()}))
    (written / "ptb.txt").write_text("changed")
    assert not is_current(written, made_of(keys))
    (written / "ptb.txt").write_bytes(before[written / "ptb.txt"])
    assert not is_current(root, made_of(keys))


def test_the_same_runs_give_the_same_bytes(written, root, data):
    before = {path: path.read_bytes() for path in written.iterdir()}
    paths = write_samples(Campaign.load(root, CORPORA, (0, 1), "test"), data)
    assert {path: path.read_bytes() for path in paths} == before


def test_a_method_that_never_finished_is_left_out(root, data, tmp_path):
    copy = tmp_path / "results"
    shutil.copytree(root / "runs" / "chorales", copy / "runs" / "chorales")
    for directory in copy.glob("runs/chorales/clipping-5/seed-*"):
        reseal(directory, status="diverged")
    write_samples(Campaign.load(copy, {"chorales": list(VALUES)}, (0, 1), "test"), data)
    summary = json.loads((copy / "samples/summary.json").read_text())
    assert "chorales: no run of clipping finished, so none is sampled." in summary["answer"]
    assert not (copy / "samples/chorales-clipping.mid").exists()
