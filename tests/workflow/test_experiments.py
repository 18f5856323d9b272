"""Experiments through the real workflow, on a tiny corpus."""

import json

import pytest

from campaign import Campaign

RATES = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28]
ONLY = ["--cores", "1"]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory, commands):
    campaign = Campaign(tmp_path_factory.mktemp("experiments"), [0.2], [5], [0], commands)
    sweep = {"epochs": 2, "rates": RATES, "methods": {"constraint": [0.2], "clipping": [5]}, "tolerance": 0.2}
    cost = {"model": {"hidden_size": 16, "input_scale": 1.0}, "deltas": [0.2, 1.4], "warm_up": 2, "steps": 6}
    campaign.values["quick"]["experiments"] = {
        "learning_rate": {"seeds": [0, 1], "corpora": {"ptb": sweep}},
        "cost": {"corpora": {"ptb": cost}},
    }
    campaign.write_params()
    campaign.use_tiny_corpus()
    campaign.first = campaign.run(*ONLY, "learning_rate")
    return campaign


def runs(campaign):
    pattern = "results/quick/experiments/learning_rate/rate-*/runs/ptb/*/seed-*/run.json"
    return {path: path.stat().st_mtime_ns for path in campaign.folder.glob(pattern)}


def test_a_sweep_leaves_records_tables_figures_and_an_answer(campaign):
    code, output = campaign.first
    assert code == 0, output
    out = campaign.folder / "results/quick/experiments/learning_rate"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["title"].endswith("?")
    assert len(summary["answer"]) == 3
    assert [table["name"] for table in summary["tables"]] == ["best_rates_ptb"]
    assert summary["figures"] == ["heat_map_ptb.svg"]
    for suffix in ("csv", "md", "html", "tex"):
        assert (out / f"best_rates_ptb.{suffix}").stat().st_size > 0
    assert (out / "heat_map_ptb.pdf").stat().st_size > 0
    assert len(runs(campaign)) == len(RATES) * 3 * 2
    for path in runs(campaign):
        record = json.loads(path.read_text())
        assert record["settings"]["learning_rate"] == float(path.parts[-6].removeprefix("rate-"))
    assert not (campaign.folder / "results/quick/runs").exists()


def test_the_second_time_nothing_is_done(campaign):
    code, output = campaign.run(*ONLY, "learning_rate")
    assert code == 0, output
    assert "Nothing to be done" in output


def test_one_rate_more_trains_that_rate_only(campaign):
    before = runs(campaign)
    campaign.values["quick"]["experiments"]["learning_rate"]["corpora"]["ptb"]["rates"] = [*RATES, 2.56]
    campaign.write_params()
    code, output = campaign.run(*ONLY, "learning_rate")
    assert code == 0, output
    after = runs(campaign)
    assert {path: after[path] for path in before} == before
    assert {path.parts[-6] for path in after.keys() - before.keys()} == {"rate-2.56"}
    table = campaign.folder / "results/quick/experiments/learning_rate/rates_ptb.csv"
    assert ",2.56," in table.read_text()


def test_what_was_lost_or_changed_by_hand_is_made_again(campaign):
    out = campaign.folder / "results/quick/experiments/learning_rate"
    table, lost = out / "best_rates_ptb.html", sorted(runs(campaign))[0]
    kept = table.read_bytes()
    table.write_text("changed")
    lost.unlink()
    code, output = campaign.run(*ONLY, "learning_rate")
    assert code == 0, output
    assert table.read_bytes() == kept
    assert lost.exists()


def test_one_method_more_trains_that_method_only(campaign):
    before = runs(campaign)
    campaign.values["quick"]["experiments"]["learning_rate"]["corpora"]["ptb"]["methods"]["clipping"] = [
        5,
        20,
    ]
    campaign.write_params()
    code, output = campaign.run(*ONLY, "results/quick/experiments/learning_rate/parts/ptb/rate-0.01.json")
    assert code == 0, output
    after = runs(campaign)
    assert {path: after[path] for path in before} == before
    assert {path.parts[-3] for path in after.keys() - before.keys()} == {"clipping-20"}


def test_the_default_target_makes_the_experiments_that_are_chosen(campaign):
    code, output = campaign.run(*ONLY, "-n", "--config", "experiments=learning_rate")
    assert code == 0, output
    plain = campaign.run(*ONLY, "-n", "-F")[1]
    chosen = campaign.run(*ONLY, "-n", "-F", "--config", "experiments=learning_rate")[1]
    assert "conclude_experiment" not in plain
    assert "conclude_experiment" in chosen


def test_an_experiment_without_settings_for_the_corpora_chosen_is_said(campaign):
    (campaign.folder / "data/prepared/chorales.npz").touch()
    code, output = campaign.run(*ONLY, "learning_rate", "--config", "corpora=chorales")
    assert code != 0
    assert "no settings for chorales" in output
    assert "Traceback (most recent call last)" not in output  # Snakemake names rule and line


def test_cost_is_measured_and_its_table_names_the_machine(campaign):
    code, output = campaign.run(*ONLY, "cost")
    assert code == 0, output
    out = campaign.folder / "results/quick/experiments/cost"
    summary = json.loads((out / "summary.json").read_text())
    assert [table["name"] for table in summary["tables"]] == ["table3"]
    assert summary["figures"] == ["cost.svg"]
    for suffix in ("csv", "md", "html", "tex"):
        assert (out / f"table3.{suffix}").stat().st_size > 0
    part = json.loads((out / "parts/ptb/delta-0.2.json").read_text())
    assert len(part["steps"]) == 6
    assert part["machine"]["threads"] == 1
    text = (out / "table3.md").read_text()
    assert f"torch {part['machine']['versions']['torch']}" in text
    assert "50,200" in text
    assert "†" in text
    assert "Nothing to be done" in campaign.run(*ONLY, "cost")[1]
