"""Tracking into a running server, and by several processes at once."""

import time
from pathlib import Path

import pandas as pd
import pytest
from tracked import Writer, runs_of

from results_records import make_campaign, make_run
from spectralgru.errors import RunError
from spectralgru.pipeline.tracking import open_store, track
from spectralgru.setting import Setting

PTB = "spectralgru/quick/ptb"
SETTINGS = {"ptb": [Setting("constraint", 0.2), Setting("constraint", 0.5), Setting("none")]}


def check_complete(uri: str, runs: list[Path], settings: int) -> None:
    """Every run once, with all its points and files, below the parent of its setting."""
    found = runs_of(uri, PTB)
    assert len(found) == len(runs) + settings
    client = open_store(uri)
    for directory in runs:
        run = found[f"{directory.parent.name} seed {directory.name.removeprefix('seed-')}"]
        history = pd.read_csv(directory / "history.csv")
        points = client.get_metric_history(run.info.run_id, "epoch/valid_loss") if len(history) else []
        assert [p.step for p in points] == history["epoch"].tolist()
        assert run.data.tags["mlflow.parentRunId"] == found[directory.parent.name].info.run_id
        assert {a.path for a in client.list_artifacts(run.info.run_id)} == {
            p.name for p in directory.iterdir()
        }


@pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)
def test_a_server_takes_what_a_file_takes_and_a_second_time_nothing(server, tmp_path, monkeypatch):
    root = tmp_path / "quick"
    runs = make_campaign(root, SETTINGS, seeds=(0, 1))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    assert track(root, runs, data=tmp_path).written == 9
    check_complete(server.url, runs, settings=3)
    again = track(root, runs, data=tmp_path)
    assert (again.written, again.unchanged) == (0, 9)
    file = f"sqlite:///{tmp_path}/file.db"
    track(root, runs, file, data=tmp_path)
    local, remote = runs_of(file, PTB), runs_of(server.url, PTB)
    for name, run in local.items():
        assert remote[name].data.metrics == run.data.metrics
        assert remote[name].data.params == run.data.params
        assert remote[name].info.status == run.info.status
        assert [d.to_dictionary() for d in remote[name].inputs.dataset_inputs] == [
            d.to_dictionary() for d in run.inputs.dataset_inputs
        ]


def lose_nothing(uri: str, tmp_path: Path) -> None:
    """Eight writers at once into a store in which nothing is yet."""
    runs, writers = [], []
    for i in range(8):  # each with results of its own, all in one experiment that none of them finds there
        root = tmp_path / f"writer-{i}" / "quick"
        runs += [make_run(root, "ptb", "clipping", 1.0 + i, seed, trace=10) for seed in (0, 1)]
        writers.append(Writer(root, uri))
    for writer in writers:
        code, errors = writer.wait()
        assert code == 0, errors
    check_complete(uri, runs, settings=8)
    writers = [Writer(tmp_path / "writer-0" / "quick", uri) for _ in range(2)]
    assert [writer.wait()[0] for writer in writers] == [0, 0]
    check_complete(uri, runs, settings=8)


def test_eight_writers_at_once_lose_nothing_in_a_file(tmp_path):
    lose_nothing(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def test_eight_writers_at_once_lose_nothing_in_postgresql(database, tmp_path):
    lose_nothing(database, tmp_path)


@pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)
def test_eight_writers_at_once_lose_nothing_in_a_server(server, tmp_path):
    lose_nothing(server.url, tmp_path)


def test_two_writers_of_the_same_results_make_every_run_once(server, tmp_path):
    root = tmp_path / "quick"
    runs = make_campaign(root, SETTINGS, seeds=(0,))
    writers = [Writer(root, server.url) for _ in range(2)]
    assert [writer.wait()[0] for writer in writers] == [0, 0]
    check_complete(server.url, runs, settings=3)


def test_a_server_that_dies_is_named_and_a_second_import_completes(server, tmp_path):
    root = tmp_path / "quick"
    runs = make_campaign(root, SETTINGS, seeds=tuple(range(8)))
    writer = Writer(root, server.url)
    client, deadline = open_store(server.url), time.monotonic() + 120
    while True:
        experiment = client.get_experiment_by_name(PTB)
        if experiment and len(client.search_runs([experiment.experiment_id])) > 4:
            break
        assert not writer.ended(), writer.wait()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.kill()
    code, errors = writer.wait()
    assert code == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("spectralgru.errors.RunError")
    assert f"{server.place}/token=***: " in last
    assert "track again" in last
    with pytest.raises(RunError, match="cannot be opened"):
        track(root, runs, server.url, data=tmp_path)
    server.start()
    done = track(root, runs, server.url, data=tmp_path)
    assert 0 < done.unchanged < len(runs)  # what was complete stayed
    check_complete(server.url, runs, settings=3)
