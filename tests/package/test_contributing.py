"""The worked diffs of CONTRIBUTING.md: each applies to the project, and what it adds works."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

import tiny

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"^### An? (\w+)\n.*?^```diff\n(.*?)^```", re.MULTILINE | re.DOTALL)
DIFFS = dict(SECTION.findall((ROOT / "CONTRIBUTING.md").read_text()))
COMMANDS = """
from spectralgru.pipeline.cli import app
for command in (
    "train --corpus ptb --method constraint --value 0.2 --threads 1",
    "figures --corpus ptb",
    "experiment frequencies",
    "prepare --corpus novel",
    "experiment beyond --part ptb/gru-scaling-0.5",
):
    app(command.split(), standalone_mode=False)
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A copy of the project with every diff applied, small settings, and what the new parts made."""
    folder = tmp_path_factory.mktemp("grown")
    for name in ("src", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "resources").symlink_to(ROOT / "resources")
    for diff in DIFFS.values():
        subprocess.run(["git", "apply", "-C1", "-"], cwd=folder, input=diff, text=True, check=True)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    quick = values["quick"] | {"run": ["ptb"], "seeds": [0]}
    ptb = quick["settings"]["ptb"] | {
        "methods": {"constraint": [0.2], "clipping": [], "none": False},
        "data": {},
    }
    ptb["model"]["hidden_size"] = 12
    ptb["training"] |= {"epochs": 2, "batch_size": 6, "bptt_steps": 10}
    on = quick["experiments"]["beyond"]["corpora"]["ptb"] | {"data": {}, "epochs": 1, "rates": {"SGD": [0.3]}}
    quick["experiments"] |= {"beyond": {"seeds": [0], "corpora": {"ptb": on}}}
    values["quick"] = quick | {"settings": quick["settings"] | {"ptb": ptb}}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    tiny.write_corpora(folder / "data")
    (folder / "novel.txt").write_text("".join(f"the {word} is here\n" for word in ("fox", "dog") * 50))
    run(folder, "-c", COMMANDS)
    return folder


def run(folder, *arguments):
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=tiny.environment(PYTHONPATH=f"{folder}/src", MLFLOW_TRACKING_URI=""),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_there_is_a_diff_for_each():
    assert set(DIFFS) == {"method", "corpus", "experiment", "figure"}


def test_the_method_keeps_its_bound(grown):
    (steps,) = (grown / "results/quick/experiments/beyond").glob(
        "gru-scaling-0.5/*/runs/ptb/scaling-0.5/seed-0/steps.csv"
    )
    assert (pd.read_csv(steps)["sigma_max"] <= 1.5 * (1 + 1e-6)).all()


def test_the_corpus_is_prepared(grown):
    record = json.loads((grown / "data/prepared/novel.json").read_text())
    assert {"the", "fox", "dog"} <= set(record["vocabulary"])


def test_the_experiment_answers_and_the_figure_is_drawn(grown):
    (answer,) = json.loads((grown / "results/quick/experiments/frequencies/summary.json").read_text())[
        "answer"
    ]
    assert re.fullmatch(r"On ptb, frequencies alone have a test loss of \d\.\d\d nats\.", answer)
    assert (grown / "results/quick/figures/ptb-learning_rates.svg").stat().st_size > 10_000


def test_both_are_targets_of_the_workflow(grown):
    planned = run(grown, "-m", "snakemake", "-n", "--cores", "1", "frequencies", "all")
    assert "ptb-learning_rates.svg" in planned
    assert "experiments/frequencies/" not in planned  # done
