"""The ranges of learning rates and the sentences drawn from them, on records made for the test."""

import pytest

from spectralgru.pipeline.experiments.learning_rate.heat_map import write_heat_map
from spectralgru.pipeline.experiments.learning_rate.rate_ranges import mark_working, ranges, tabulate
from spectralgru.pipeline.experiments.learning_rate.results import Sweep, sentences, sum_up
from spectralgru.records import Run
from spectralgru.setting import Setting

RATES = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0]
SETTINGS = [Setting("constraint", 0.2), Setting("clipping", 20.0), Setting("none")]
WORKING = {
    # Perplexity by rate; None: not finite; a string: no better than the frequencies.
    Setting("constraint", 0.2): [130, 105, 100, 108, 140, None],
    Setting("clipping", 20.0): [140, 108, 104, "lost", 300, None],
    Setting("none"): [None] * 6,
}
SHARED = {
    "data": {"train": None, "valid": None, "test": None, "vocabulary": None},
    "model": {"hidden_size": 8, "num_layers": 1},
    "training": {"epochs": 3, "schedule": {"kind": "decay"}},
}


def run(method, value, seed, perplexity):
    reason = (
        "loss not finite" if perplexity is None else "no better than 5.0, the loss of the corpus' frequencies"
    )
    lost = perplexity is None or perplexity == "lost"
    best = {} if lost else {"valid": perplexity + seed, "test": perplexity - 5 + seed}
    return Run(
        "ptb", method, value, seed, "quick", "diverged" if lost else "finished", "perplexity", best=best,
        diverged={"epoch": 1, "step": 3, "reason": reason} if lost else None, settings=SHARED,
    )  # fmt: skip


def runs(values=WORKING, seeds=(0, 2)):
    return {
        rate: [run(*setting, seed, results[i]) for setting, results in values.items() for seed in seeds]
        for i, rate in enumerate(RATES)
    }


def table(values=WORKING, tolerance=0.1):
    return ranges(mark_working(tabulate(runs(values), SETTINGS), tolerance)).set_index("setting")


def test_the_best_rate_is_chosen_on_validation_and_its_range_has_no_gap():
    found = table().loc["constraint-0.2"]
    assert (found["best_rate"], found["valid"], found["test"]) == (0.5, 101, 96)
    assert (found["lowest"], found["highest"], found["factors_of_two"]) == (0.25, 1.0, 2)
    assert not found["open_below"]
    assert not found["open_above"]
    assert found["highest_finishing"] == 2.0


def test_a_lost_run_ends_the_range_though_higher_rates_finish():
    found = table().loc["clipping-20"]
    assert (found["lowest"], found["highest"], found["highest_finishing"]) == (0.25, 0.5, 2.0)


def test_a_method_that_never_finishes_has_no_best_rate():
    assert table().loc["none"].drop("setting", errors="ignore").isna().all()


def test_one_lost_seed_of_several_is_enough():
    made = runs()
    made[0.5][1] = run("constraint", 0.2, 2, None)
    sweep = mark_working(tabulate(made, SETTINGS), 0.1)
    cell = sweep[(sweep["setting"] == "constraint-0.2") & (sweep["rate"] == 0.5)].iloc[0]
    assert (cell["runs"], cell["finished"], cell["overflowed"]) == (2, 1, 1)
    assert not cell["works"]
    assert ranges(sweep).set_index("setting").loc["constraint-0.2", "best_rate"] == 0.25


def test_a_range_that_reaches_the_end_of_the_sweep_is_open():
    values = {**WORKING, Setting("clipping", 20.0): [100, 100, 100, 100, 100, 100]}
    found = table(values).loc["clipping-20"]
    assert found["open_below"]
    assert found["open_above"]
    assert found["factors_of_two"] == 5


def test_working_is_measured_against_the_best_of_all_methods():
    values = {**WORKING, Setting("constraint", 0.2): [50] * 6}
    found = table(values).loc["clipping-20"]
    assert found["best_rate"] == 0.5
    assert found.isna()["lowest"]


@pytest.mark.parametrize(
    ("clipped", "said"),
    [
        (
            WORKING["clipping", 20.0],
            "yes, clip 20 loses runs from 1 up, but at 0.5 all finish, test perplexity 100",
        ),
        (
            [140, 108, 104, 108, 140, 160],
            "clip 20 loses no run at a high rate, so there is nothing to repair",
        ),
        ([None] * 6, "no, at no rate does every run of clip 20 finish"),
        ([300, 250, 200, 210, "lost", None], "in part, clip 20 loses runs from 2 up"),
    ],
)
def test_the_answer_follows_the_numbers(clipped, said):
    values = {**WORKING, Setting("clipping", 20.0): clipped}
    found = sentences([Sweep("ptb", SETTINGS, runs(values), 0.1)])
    assert len(found) == 3
    assert said in found[0]
    assert "against 96 of the best constraint, δ = 0.2 at 0.5" in found[0] or said.startswith("no,")
    assert "2 (δ = 0.2)" in found[1]
    assert "none (unconstrained) on ptb" in found[2]


def test_tables_and_figures_are_written_and_say_what_they_are(tmp_path):
    answer = sum_up([Sweep("ptb", SETTINGS, runs(), 0.1)], tmp_path)
    assert [table.name for table in answer.tables] == ["best_rates_ptb"]
    text = (tmp_path / "best_rates_ptb.md").read_text()
    assert "| best rate |  | 0.5 | 0.5 | none |" in text
    assert "0.25 to 1" in text
    assert r"\begin{table*}" in (tmp_path / "best_rates_ptb.tex").read_text()
    figure = (tmp_path / "heat_map_ptb.svg").read_bytes()
    assert figure.startswith(b"<?xml")
    sum_up([Sweep("ptb", SETTINGS, runs(), 0.1)], tmp_path)
    assert (tmp_path / "heat_map_ptb.svg").read_bytes() == figure


def test_a_heat_map_of_a_sweep_in_which_nothing_finished(tmp_path):
    sweep = mark_working(tabulate(runs(dict.fromkeys(WORKING, [None] * 6)), SETTINGS), 0.1)
    paths = write_heat_map(sweep, ["a", "b", "c"], "perplexity", "nothing", tmp_path / "map")
    assert all(path.stat().st_size > 0 for path in paths)
