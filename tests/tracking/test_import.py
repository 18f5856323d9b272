import json
import socket
import sqlite3
from collections import Counter
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config
from tracked import Writer, runs_of

from results_records import REPOSITORY, START, make_run, reseal
from spectralgru.errors import InputError, RunError
from spectralgru.pipeline import cli
from spectralgru.pipeline.results.load import RunFiles
from spectralgru.pipeline.summary import write_summary
from spectralgru.pipeline.tracking import open_store, track, tracking_uri
from spectralgru.pipeline.tracking.convert import TRACE_POINTS, run_metrics
from spectralgru.pipeline.tracking.metrics import insert
from spectralgru.records import read_run

PTB, MUSIC = "spectralgru/quick/ptb", "spectralgru/quick/chorales"
BEGIN = int(datetime.fromisoformat(START).timestamp() * 1000)


def test_one_run_per_directory_below_one_parent_per_setting(campaign, uri):
    root, runs = campaign
    done = track(root, runs, uri)
    assert (done.written, done.unchanged) == (5 + 3, 0)
    found = runs_of(uri, PTB)
    assert set(found) == {
        "constraint-0.2", "constraint-0.2 seed 0", "constraint-0.2 seed 1", "none", "none seed 0", "none seed 1"
    }  # fmt: skip
    for name, run in found.items():
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (found[name.split()[0]].info.run_id if "seed" in name else None)
    assert set(runs_of(uri, MUSIC)) == {"clipping-15", "clipping-15 seed 0"}


def test_parameters_and_tags_tell_what_a_run_was(campaign, uri):
    track(*campaign, uri)
    run = runs_of(uri, PTB)["constraint-0.2 seed 1"]
    assert run.data.params["model.hidden_size"] == "12"
    assert run.data.params["training.schedule.kind"] == "decay"
    assert run.data.params["delta"] == "0.2"
    common = runs_of(uri, PTB)["constraint-0.2"].data.params
    assert common == {name: value for name, value in run.data.params.items() if name != "seed"}
    tags = run.data.tags
    expected = {"method": "constraint", "delta": "0.2", "seed": "1", "corpus": "ptb", "scale": "quick"}
    expected |= {"status": "finished", "git_commit": "0123456789abcdef", "data_sha256": "ab" * 32}
    assert {name: tags[name] for name in expected} == expected
    assert tags["run_key"] == read_run(campaign[1][1]).key
    assert runs_of(uri, MUSIC)["clipping-15 seed 0"].data.tags["threshold"] == "15"


def test_curves_are_those_of_history_csv_with_real_times(campaign, uri):
    root, runs = campaign
    track(root, runs, uri)
    run = runs_of(uri, PTB)["constraint-0.2 seed 0"]
    history = pd.read_csv(runs[0] / "history.csv")
    client = open_store(uri)
    for column in history.columns.drop("epoch"):
        points = client.get_metric_history(run.info.run_id, f"epoch/{column}")
        assert [p.step for p in points] == history["epoch"].tolist()
        assert [p.value for p in points] == pytest.approx(history[column].tolist())
        assert [p.timestamp for p in points] == [BEGIN + 2500 * e for e in history["epoch"]]
    assert run.data.metrics["epoch/valid_loss"] == pytest.approx(history["valid_loss"].iloc[-1])  # the latest
    assert run.data.metrics["best_test"] == pytest.approx(read_run(runs[0]).best["test"])
    assert (run.info.start_time, run.info.end_time) == (BEGIN, BEGIN + 15_000)


def test_a_setting_shows_the_mean_validation_curve_of_its_successful_seeds(tmp_path: Path, uri):
    runs = [make_run(tmp_path, "ptb", "clipping", 5.0, seed) for seed in (0, 1)]
    runs.append(make_run(tmp_path, "ptb", "clipping", 5.0, 2, diverged_in=4))
    track(tmp_path, runs, uri)
    setting = runs_of(uri, PTB)["clipping-5"].info.run_id
    for column in ("valid_loss", "valid_metric"):
        curves = [pd.read_csv(directory / "history.csv")[column] for directory in runs[:2]]
        points = open_store(uri).get_metric_history(setting, f"epoch/{column}")
        assert [p.step for p in points] == list(range(1, 7))
        assert [p.value for p in points] == pytest.approx(((curves[0] + curves[1]) / 2).tolist())


def test_trace_is_thinned_and_keeps_the_burst(tmp_path: Path):
    directory = make_run(tmp_path, "ptb", "clipping", 5.0, 0, trace=500)
    steps = pd.read_csv(directory / "steps.csv")
    steps.loc[1234, "grad_norm"] = 1e6
    steps.to_csv(directory / "steps.csv", index=False)
    reseal(directory)
    points = [p for p in run_metrics(RunFiles(directory, read_run(directory))) if p[0] == "trace/grad_norm"]
    assert 0 < len(points) <= TRACE_POINTS
    assert max(p[1] for p in points) == 1e6
    assert points[-1][3] == steps["step"].iloc[-1]
    times = [p[2] for p in points]
    assert times == sorted(times)
    assert BEGIN <= times[0] < times[-1] <= BEGIN + 15_000


def test_diverged_runs_are_marked_and_leave_no_broken_numbers(campaign, uri):
    track(*campaign, uri)
    found = runs_of(uri, PTB)
    run = found["none seed 0"]
    assert run.info.status == "FAILED"
    assert run.data.tags["status"] == "diverged"
    assert run.data.tags["diverged.epoch"] == "3"
    assert run.data.tags["diverged.reason"] == "gradient not finite"
    assert found["constraint-0.2 seed 0"].info.status == "FINISHED"
    assert found["none seed 1"].info.status == "FAILED"  # without one finished epoch
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    assert database.execute("SELECT count(*) FROM metrics WHERE is_nan OR abs(value) > 1e300").fetchone() == (
        0,
    )
    assert found["none"].data.metrics["success"] == 0
    assert "best_test" not in found["none"].data.metrics
    tests = [read_run(d).best["test"] for d in campaign[1][:2]]
    assert found["constraint-0.2"].data.metrics["best_test"] == pytest.approx(sum(tests) / 2)


def test_tracking_again_changes_nothing(campaign, uri):
    root, runs = campaign
    track(root, runs, uri)
    before = {name: run.to_dictionary() for name, run in runs_of(uri, PTB).items()}
    done = track(root, runs, uri)
    assert (done.written, done.unchanged) == (0, 8)
    assert {name: run.to_dictionary() for name, run in runs_of(uri, PTB).items()} == before


def test_a_changed_run_directory_replaces_its_run_and_the_summary(campaign, uri):
    root, runs = campaign
    track(root, runs, uri)
    before = runs_of(uri, PTB)
    make_run(root, "ptb", "constraint", 0.2, 1, best=(60.0, 50.0))
    done = track(root, runs, uri)
    assert (done.written, done.unchanged) == (2, 6)
    after = runs_of(uri, PTB)
    assert set(after) == set(before)
    changed = {name for name in after if after[name].info.run_id != before[name].info.run_id}
    assert changed == {"constraint-0.2", "constraint-0.2 seed 1"}
    assert after["constraint-0.2 seed 1"].data.metrics["best_test"] == 50.0
    kept = after["constraint-0.2 seed 0"]
    assert kept.data.tags["mlflow.parentRunId"] == after["constraint-0.2"].info.run_id
    mean = (50.0 + kept.data.metrics["best_test"]) / 2
    assert after["constraint-0.2"].data.metrics["best_test"] == pytest.approx(mean)


def test_an_import_broken_off_is_made_good(campaign, uri, monkeypatch):
    root, runs = campaign
    with monkeypatch.context() as patch:
        calls = Counter()

        def dying(*arguments):
            calls["log"] += 1
            if calls["log"] == 2:
                raise OSError("disk full")
            return insert(*arguments)

        patch.setattr("spectralgru.pipeline.tracking.metrics.insert", dying)
        with pytest.raises(RunError, match="disk full"):
            track(root, runs, uri)
    track(root, runs, uri)
    found = runs_of(uri, PTB)
    assert len(found) == 6
    assert all("spectralgru.content" in run.data.tags for run in found.values())
    assert found["constraint-0.2 seed 1"].data.metrics["epoch/valid_loss"] > 0


def test_artifacts_can_be_fetched_and_figures_go_to_their_corpus(campaign, uri, tmp_path: Path):
    root, runs = campaign
    figures = []
    for name in ("ptb-trajectory.svg", "chorales-trajectory.svg", "table1.html"):
        (root / name).write_text(f"<svg>{name}</svg>")
        figures.append(root / name)
    track(root, runs, uri, figures)
    client = open_store(uri)
    run = runs_of(uri, PTB)["constraint-0.2 seed 0"]
    listed = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert listed == {"run.json", "history.csv", "steps.csv", "model.safetensors"}
    fetched = client.download_artifacts(run.info.run_id, "model.safetensors", str(tmp_path))
    assert Path(fetched).read_bytes() == (runs[0] / "model.safetensors").read_bytes()
    for experiment, own in ((PTB, "ptb"), (MUSIC, "chorales")):
        results = runs_of(uri, experiment)["results"].info.run_id
        assert {a.path for a in client.list_artifacts(results)} == {f"{own}-trajectory.svg", "table1.html"}
    assert track(root, runs, uri, figures).written == 0
    figures[0].write_text("<svg>new</svg>")
    assert track(root, runs, uri, figures).written == 1


def test_samples_are_artifacts_of_their_corpus(campaign, uri, tmp_path: Path, monkeypatch):
    root = campaign[0]
    names = ["chorales-original.mp3", "chorales-original.mid", "chorales-piano_rolls.svg", "ptb.txt"]
    (root / "samples").mkdir()
    for name in [*names, "chorales-clipping.mp3"]:  # the last is of an earlier campaign
        (root / "samples" / name).write_text(name)
    write_summary(root / "samples", {}, names, {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    options = ["--corpus", "chorales", "--scale", "quick", "--out", str(root), "--data", str(tmp_path)]
    monkeypatch.setattr(
        "sys.argv", ["spectralgru", "track", "--params", str(REPOSITORY / "params.yaml"), *options]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    run = runs_of(uri, MUSIC)["results"]
    assert {file.path for file in open_store(uri).list_artifacts(run.info.run_id)} == set(names[:3])


def test_broken_records_are_named(campaign, uri):
    root, runs = campaign
    (runs[1] / "run.json").write_text("{")
    with pytest.raises(InputError, match="seed-1"):
        track(root, runs, uri)


@pytest.mark.parametrize("name", ["history.csv", "steps.csv", "model.safetensors"])
def test_a_damaged_file_is_not_imported(campaign, uri, name):
    root, runs = campaign
    file = runs[1] / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"seed-1/{name}: damaged"):
        track(root, runs, uri)


def test_bulk_insert_stores_what_log_batch_would(uri):
    client = open_store(uri)
    experiment = client.create_experiment("compare")
    points = [(name, v, 1000 + s, s) for name in ("a", "b") for s, v in enumerate((3.0, -1.5, 2.0, 1e-9))]
    points += [
        ("once", 7.0, 5, 0),
        ("a", 4.0, 1003, 3),
        *((f"many/{i}", float(i), i, i) for i in range(1500)),
    ]
    params = {"delta": "0.2", "model.hidden_size": "12"}
    made = []
    for store in (client._tracking_client.store, None):
        run = client.create_run(experiment).info.run_id
        if store is None:  # what a server gets

            class Remote:
                log_batch = staticmethod(client.log_batch)
                _tracking_client = type("T", (), {"store": None})

            insert(Remote, run, points, params)
        else:
            insert(client, run, points, params)
        history = {
            name: [(m.value, m.timestamp, m.step) for m in client.get_metric_history(run, name)]
            for name in ("a", "b", "once", "many/1234")
        }
        data = client.get_run(run).data
        made.append((history, data.metrics, data.params))
    assert made[0] == made[1]
    assert made[0][2] == params
    assert made[0][0]["a"] == [(3.0, 1000, 0), (-1.5, 1001, 1), (2.0, 1002, 2), (4.0, 1003, 3)]


def test_two_processes_on_a_fresh_store_lose_nothing(campaign, tmp_path: Path):
    root, runs = campaign
    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    started = [Writer(root, uri, runs) for _ in range(2)]
    assert [writer.wait()[0] for writer in started] == [0, 0]
    assert len(runs_of(uri, PTB)) == 6


def test_environment_variable_names_the_store(campaign, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert track(*campaign).uri == uri
    assert tracking_uri("sqlite:///other.db") == "sqlite:///other.db"
    assert len(runs_of(uri, MUSIC)) == 2


def test_stores_that_cannot_be_opened_say_so_at_once(campaign, tmp_path: Path):
    root, runs = campaign
    broken = tmp_path / "broken.db"
    broken.write_text("this is not a database, whatever its name says " * 50)
    with pytest.raises(RunError, match=r"broken\.db.*not a database"):
        track(root, runs, f"sqlite:///{broken}")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(RunError, match=f"127.0.0.1:{port}.*track again"):
            track(root, runs, f"http://127.0.0.1:{port}")
        with pytest.raises(RunError, match=rf"me:\*\*\*@127.0.0.1:{port}.*refused") as refused:
            track(root, runs, f"postgresql://me:secret@127.0.0.1:{port}/runs")
        assert "secret" not in str(refused.value)


def test_an_old_database_is_upgraded_after_a_copy(campaign, uri):
    def version(path: str) -> str:
        with sqlite3.connect(path) as database:
            return database.execute("SELECT version_num FROM alembic_version").fetchone()[0]

    path = uri.removeprefix("sqlite:///")
    head, config = version(path), _get_alembic_config(uri)
    previous = ScriptDirectory.from_config(config).get_revision(head).down_revision
    command.downgrade(config, previous)
    assert version(path) == previous
    track(*campaign, uri)
    assert (version(path), version(path + ".backup")) == (head, previous)
    assert len(runs_of(uri, PTB)) == 6


def test_records_are_not_touched(campaign, uri):
    root, runs = campaign
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for d in runs for p in d.iterdir()}
    track(root, runs, uri)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for d in runs for p in d.iterdir()} == before
    assert json.loads((runs[0] / "run.json").read_text())["seed"] == 0


def test_searches_of_the_documentation_find_what_they_say(campaign, uri):
    track(*campaign, uri)
    client = open_store(uri)
    experiment = client.get_experiment_by_name(PTB).experiment_id
    page = (Path(__file__).parents[2] / "docs/tracking.md").read_text()
    lines = [line.strip() for line in page.splitlines() if line.startswith("    tags.")]
    queries = [line.replace("best_test < 78", "best_test < 125") for line in lines]  # these runs are worse
    found = {q: sorted(run.info.run_name for run in client.search_runs([experiment], q)) for q in queries}
    assert found == {
        "tags.method = 'constraint' and tags.status = 'finished' and metrics.best_test < 125": [
            "constraint-0.2 seed 0",
            "constraint-0.2 seed 1",
        ],
        "tags.status = 'diverged' and params.threshold = '20'": [],
        "tags.status = 'running'": [],
        "tags.setting = 'constraint-0.2' and tags.seed = '0'": ["constraint-0.2 seed 0"],
        "tags.data_sha256 LIKE 'ab%'": [f"{s} seed {i}" for s in ("constraint-0.2", "none") for i in (0, 1)],
    }
