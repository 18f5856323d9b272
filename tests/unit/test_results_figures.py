import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from results_records import make_campaign, make_run, reseal
from spectralgru.errors import InputError
from spectralgru.pipeline.results.figures import FIGURES, write_figures
from spectralgru.pipeline.results.load import Campaign, load_runs
from spectralgru.pipeline.results.names import FIGURE_NAMES
from spectralgru.pipeline.results.style import looks
from spectralgru.setting import Setting

PTB = {"ptb": [Setting("constraint", 0.2), Setting("clipping", 20.0), Setting("none")]}
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("figures") / "quick"
    make_campaign(root, PTB, SEEDS, epochs=4)
    return root, write_figures(Campaign.load(root, PTB, SEEDS, "quick"))


def test_every_figure_is_written_as_svg_and_pdf_with_its_own_content(drawn):
    root, paths = drawn
    assert paths == [root / f"figures/ptb-{what}.{kind}" for what in FIGURES for kind in ("svg", "pdf")]
    assert tuple(FIGURES) == FIGURE_NAMES  # what the workflow expects
    assert len({p.read_bytes() for p in paths}) == len(paths)
    for path in paths:
        head = path.read_bytes()[:400]
        assert head.startswith(b"%PDF") if path.suffix == ".pdf" else b"<svg" in path.read_bytes()[:2000]


def test_vector_graphics_without_dates_or_pixels(drawn):
    for path in drawn[1]:
        if path.suffix == ".svg":
            text = path.read_text()
            assert "<image" not in text
            assert not re.search(r"<dc:date>", text)
        else:
            assert b"CreationDate" not in path.read_bytes()


def test_same_records_same_bytes_other_records_others(drawn, tmp_path: Path, monkeypatch):
    root, paths = drawn
    before = {p: p.read_bytes() for p in paths}
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20)  # a user's own matplotlibrc
    write_figures(Campaign.load(root, PTB, SEEDS, "quick"))
    assert {p: p.read_bytes() for p in paths} == before
    make_campaign(tmp_path, PTB, SEEDS, epochs=5)
    for path in write_figures(Campaign.load(tmp_path, PTB, SEEDS, "quick")):
        if path.suffix == ".svg" and "singular" not in path.name:  # those are the same in both
            assert path.read_bytes() != before[root / "figures" / path.name], path.name


@pytest.mark.parametrize("trace", [40, 0])
def test_runs_that_never_finished_an_epoch_are_drawn(tmp_path: Path, trace: int):
    settings = [Setting("none")]
    make_run(tmp_path, "chorales", "none", None, 0, diverged_in=1, trace=trace)
    assert pd.read_csv(tmp_path / "runs/chorales/none/seed-0/history.csv").empty
    paths = write_figures(Campaign.load(tmp_path, {"chorales": settings}, (0,), "quick"))
    assert all(p.stat().st_size > 2000 for p in paths)


def test_settings_differ_without_colour():
    chosen = looks([Setting("constraint", d) for d in (0.2, 0.5, 0.8, 1.1, 1.4)])
    assert len({(look.marker, str(look.linestyle)) for look in chosen.values()}) == 5
    reds = [int(look.color[1:3], 16) for look in chosen.values()]
    assert reds == sorted(reds)  # dark to light


def test_an_unreadable_trace_is_named(tmp_path: Path):
    directory = make_run(tmp_path, "ptb", "constraint", 0.2, 0)
    (directory / "steps.csv").write_text("step,epoch\n1,two\n")
    reseal(directory)
    with pytest.raises(InputError, match=r"steps\.csv"):
        write_figures(Campaign.load(tmp_path, {"ptb": [Setting("constraint", 0.2)]}, (0,), "quick"))


@pytest.mark.parametrize("lost_at_once", [[], [Setting("none")]])
@pytest.mark.parametrize("exploding", [Setting("clipping", 60), Setting("constraint", 1.4)])
def test_a_run_that_explodes_does_not_flatten_the_learning_curves_of_others(
    tmp_path: Path, exploding, lost_at_once
):
    settings = [Setting("constraint", 0.2), exploding, *lost_at_once]
    for setting, diverged_in in zip(settings, (None, 5, 1), strict=False):
        make_run(tmp_path, "ptb", *setting, 0, diverged_in=diverged_in)
    history = tmp_path / "runs/ptb" / exploding.name / "seed-0/history.csv"
    pd.read_csv(history).assign(valid_metric=[900.0, 400.0, 1e9, 1e200]).to_csv(history, index=False)
    reseal(history.parent)
    runs = load_runs(tmp_path, "ptb", settings, (0,), "quick")
    figure = FIGURES["learning_curves"](runs)
    low, high = figure.axes[0].get_ylim()
    shown = runs[settings[0]][0].history["valid_metric"]
    assert low < shown.min()
    assert shown.max() < high < 10 * shown.max()
