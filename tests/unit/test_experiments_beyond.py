"""The experiment `beyond` from its parts to its table and sentences, on a tiny corpus."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import tiny
from spectralgru.pipeline.experiments import base
from spectralgru.pipeline.experiments.remedies import question as beyond
from spectralgru.pipeline.experiments.remedies.results import Field
from spectralgru.pipeline.params import Params, parse_params
from spectralgru.records import Run, Status

ROOT = Path(__file__).parents[2]
WILD = 1e30  # a learning rate at which nothing survives


def tiny_params(**changes: Any) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    quick = values["quick"]
    quick["run"] = ["ptb"]
    quick["settings"]["ptb"]["training"] |= {"batch_size": 6, "bptt_steps": 10}
    on = {
        "data": {},
        "model": {"hidden_size": 12, "num_layers": 1, "input_scale": 1.0, "dropout": 0.3},
        "epochs": 2,
        "schedule": {"kind": "decay", "patience": 2, "factor": 1.5},
        "rates": {"SGD": [0.3, WILD]},
        "delta": 0.5,
        "threshold": 5,
        "decays": [],
        "gates": [0.7],
        "percentiles": [10],
        "depths": [],
    }
    quick["experiments"] = {"beyond": {"seeds": [0, 1], "timed_steps": 2, "corpora": {"ptb": on | changes}}}
    return parse_params(values)


@pytest.fixture(scope="module")
def concluded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("beyond")
    tiny.write_corpora(folder / "data")
    params = tiny_params()
    means = base.Means(folder / "data", folder / "out", folder / "checkpoints", threads=1)
    for part in base.chosen_parts(params, "beyond"):
        base.make_part(params, "beyond", part, means)
    return params, folder / "out", base.conclude(params, "beyond", folder / "out")


def test_every_baseline_is_a_line_of_the_table(concluded: tuple[Params, Path, dict[str, Any]]) -> None:
    _, out, summary = concluded
    assert [table["name"] for table in summary["tables"]] == ["baselines_ptb"]
    table = pd.read_csv(out / "baselines_ptb.csv")
    assert len(table) == 14
    assert not table.duplicated(["network", "method"]).any()
    assert set(table["network"]) == {"GRU", "GRU of the paper", "LSTM"}
    assert (table["best_rate"] == 0.3).all()  # chosen by validation: nothing finishes at the other
    assert (table["rates_tried"] == 2).all()
    assert (table["rates_finished"] <= 1).all()
    assert (table["runs"] == 2).all()
    assert table.loc[table["method"] == "clip 5", "of_clipping"].tolist() == [1.0] * 3
    assert (table["seconds_per_step"] > 0).all()
    for suffix in ("md", "html", "tex"):
        assert (out / f"baselines_ptb.{suffix}").stat().st_size > 0


def test_what_is_said_is_what_the_runs_say(concluded: tuple[Params, Path, dict[str, Any]]) -> None:
    params, out, summary = concluded
    on = beyond.chosen(params)["ptb"]
    lines = Field("ptb", tuple(beyond.baselines(on)), (0, 1), on).lines(out)
    first = next(line for line in lines if line.baseline.name == "gru-clipping-5")
    assert [run.status for run in first.tried] == ["finished", "diverged"]
    assert [run.seed for run in first.runs] == [0, 1]
    bounded = next(line for line in lines if line.baseline.gates is not None)
    assert bounded.runs[0].settings["gates"] == 0.7
    both = next(line for line in lines if line.baseline.clip is not None)
    assert both.runs[0].settings["clip"] == 5
    assert both.runs[0].method == "constraint"
    best = min((line for line in lines if line.mean("valid")), key=lambda line: line.mean("valid") or 0)
    said = " ".join(summary["answer"])
    assert f"({best.mean('valid'):.1f})" in said
    clipped, constrained = ("n/a" if (v := line.mean("test")) is None else f"{v:.1f}" for line in lines[:2])
    assert f"GRU {constrained} against {clipped}" in said
    assert "lose the first seed at some of the rates" in said
    assert "is the lowest or highest tried" in said


def test_a_part_that_is_made_is_left_alone(
    concluded: tuple[Params, Path, dict[str, Any]], tmp_path: Path
) -> None:
    params, out, _ = concluded
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    means = base.Means(out.parent / "data", out, tmp_path, threads=1)
    for part in base.chosen_parts(params, "beyond"):
        base.make_part(params, "beyond", part, means)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == before


def test_keys_follow_the_settings() -> None:
    part = base.Part("ptb", "gru-none")
    changes: list[dict[str, Any]] = [{}, {"epochs": 3}, {"rates": {"SGD": [0.3]}}, {"data": {"train": 900}}]
    keys = {beyond.key(tiny_params(**change), part, "0") for change in changes}
    assert len(keys) == len(changes)
    assert beyond.key(tiny_params(), part, "1") not in keys
    # Another baseline is no concern of this one.
    assert beyond.key(tiny_params(decays=[0.1]), part, "0") in keys


@pytest.mark.parametrize(
    ("outcomes", "rate"),
    [
        ({0.1: (9.0, True), 0.2: (8.0, True), 0.4: (7.0, False)}, 0.2),  # one that diverged does not count
        ({0.1: (9.0, False), 0.2: (None, False), 0.4: (8.0, False)}, 0.4),  # unless all did
    ],
)
def test_the_rate_is_chosen_by_validation(
    outcomes: dict[float, tuple[float | None, bool]], rate: float
) -> None:
    runs = {}
    for tried, (valid, finished) in outcomes.items():
        status: Status = "finished" if finished else "diverged"
        best = {} if valid is None else {"valid": valid}
        runs[tried] = Run("ptb", "none", None, 0, "quick", status, "perplexity", best)
    assert beyond.best_rate(runs) == rate
