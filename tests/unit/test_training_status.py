"""A campaign's state from its run directories."""

import io
import os
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from spectralgru.pipeline.params import Params, load_params
from spectralgru.pipeline.status import campaign_status, describe, seconds_left
from spectralgru.pipeline.watch import bars, watch
from spectralgru.records import HISTORY_COLUMNS, Run, run_path, write_history, write_record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml", {"scale": "quick", "corpora": ["ptb"]})


def rows(epochs: int, seconds: float = 10.0) -> list[dict[str, float]]:
    return [
        dict.fromkeys(HISTORY_COLUMNS, 1.0) | {"epoch": e, "seconds": seconds, "valid_metric": 100.0 - e}
        for e in range(1, epochs + 1)
    ]


def under_way(root: Path, setting: tuple, seed: int, epochs: int, age: float = 0.0) -> None:
    directory = run_path(root, "ptb", *setting, seed)
    write_history(directory, rows(epochs))
    then = time.time() - age
    os.utime(directory / "history.csv", (then, then))


def ended(root: Path, setting: tuple, seed: int, epochs: int, status: str) -> None:
    under_way(root, setting, seed, epochs)
    record = Run("ptb", *setting, seed, "quick", status, "nll")
    write_record(run_path(root, "ptb", *setting, seed), record)


def test_nothing_has_begun(params: Params, tmp_path: Path) -> None:
    runs = list(campaign_status(params, tmp_path))
    assert len(runs) == len(params.settings("ptb")) * len(params.section.seeds)
    assert {run.state for run in runs} == {"queued"}
    assert seconds_left(runs) is None
    assert "time left: not known yet" in describe(params, tmp_path)


def test_states_and_time_left(params: Params, tmp_path: Path) -> None:
    settings, epochs = params.settings("ptb"), params.of_corpus("ptb").training.epochs
    seeds = params.section.seeds
    for seed in seeds:
        ended(tmp_path, settings[0], seed, epochs, "diverged" if seed == seeds[0] else "finished")
        under_way(tmp_path, settings[1], seed, 2)
        under_way(tmp_path, settings[2], seed, 1, age=3600)
    text = describe(params, tmp_path)
    total, n = len(settings) * len(seeds), len(seeds)
    assert text.splitlines()[0] == (
        f"ptb: {total} runs, {n - 1} finished, 1 diverged, {n} running, {n} interrupted, {total - 3 * n} queued"
    )
    assert f"running, epoch 2/{epochs}, best validation 98" in text
    # 10 s an epoch; one job runs at a time.
    left = 10 * (epochs - 2) + 10 * (epochs - 1) + (len(settings) - 3) * 10 * epochs
    assert seconds_left(list(campaign_status(params, tmp_path))) == pytest.approx(left)


def test_all_done(params: Params, tmp_path: Path) -> None:
    for setting in params.settings("ptb"):
        for seed in params.section.seeds:
            ended(tmp_path, setting, seed, 6, "finished")
    text = describe(params, tmp_path)
    assert "time left" not in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"epoch,seconds\n1,2\n", b"seconds,valid_metric\n1,2\n3"]
)
def test_a_damaged_history_stops_nothing_and_runs_for_nobody(
    params: Params, tmp_path: Path, content: bytes
) -> None:
    setting, seed = params.settings("ptb")[0], params.section.seeds[0]
    under_way(tmp_path, setting, seed, 2)
    history = run_path(tmp_path, "ptb", *setting, seed) / "history.csv"
    history.write_bytes(content)
    tomorrow = time.time() + 86_400  # as after the clock was set back
    os.utime(history, (tomorrow, tomorrow))
    assert "1 interrupted" in describe(params, tmp_path)


def test_it_is_watched_until_every_run_has_ended(params: Params, tmp_path: Path, monkeypatch) -> None:
    settings, epochs = params.settings("ptb"), params.of_corpus("ptb").training.epochs
    for setting in settings[1:]:
        for seed in params.section.seeds:
            ended(tmp_path, setting, seed, epochs, "finished")
    under_way(tmp_path, settings[0], params.section.seeds[0], 3)

    def end(_seconds: float) -> None:
        for seed in params.section.seeds:
            ended(tmp_path, settings[0], seed, epochs, "diverged")

    monkeypatch.setattr("spectralgru.pipeline.watch.time.sleep", end)
    output = io.StringIO()
    watch(params, tmp_path, 1, Console(file=output))
    lines = output.getvalue().splitlines()
    others = (len(settings) - 1) * len(params.section.seeds)
    assert f"{others} finished, 1 running" in lines[0]
    assert lines[-1].endswith(f"{others} finished, {len(params.section.seeds)} diverged")


def test_a_terminal_shows_bars(params: Params, tmp_path: Path) -> None:
    setting, epochs = params.settings("ptb")[0], params.of_corpus("ptb").training.epochs
    under_way(tmp_path, setting, params.section.seeds[0], 3)
    console = Console(file=io.StringIO(), record=True, width=120)
    console.print(bars(list(campaign_status(params, tmp_path))))
    text = console.export_text()
    assert re.search(rf"ptb {setting.name} seed 0 [━╸╺ ]+epoch 3 of {epochs}, best validation 97", text)
    assert "time left: about" in text
