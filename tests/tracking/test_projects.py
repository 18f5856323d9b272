"""Which runs belong to which project: projects that share a store, are moved, or are copied."""

import json
import os
import shutil
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from tracked import copy_store

from results_records import make_campaign, make_run
from spectralgru.errors import RunError
from spectralgru.pipeline.tracking import open_store, track
from spectralgru.pipeline.tracking.project import FILE

PTB = "spectralgru/quick/ptb"
SETTINGS = {"ptb": [("constraint", 0.2), ("none", None)]}


def all_runs(uri: str, deleted: bool = False) -> list:
    client = open_store(uri)
    experiment = client.get_experiment_by_name(PTB)
    return client.search_runs(
        [experiment.experiment_id], run_view_type=2 if deleted else ViewType.ACTIVE_ONLY
    )


def import_all(project: Path, uri: str, **options):
    root = project / "results" / "quick"
    return track(root, sorted(root.glob("runs/*/*/seed-*")), uri, data=project, **options)


def readable(uri: str) -> None:
    """Every run has its artifacts."""
    client = open_store(uri)
    for run in all_runs(uri):
        if "seed" in run.data.tags:
            assert {a.path for a in client.list_artifacts(run.info.run_id)} >= {"run.json", "history.csv"}


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch) -> Path:
    """A project with two settings of two seeds and a store beside its results."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "anna"
    make_campaign(folder / "results" / "quick", SETTINGS, seeds=(0, 1))
    copy_store(empty_store, folder / "mlflow.db")
    return folder


def own(project: Path) -> str:
    return f"sqlite:///{project}/mlflow.db"


def as_at(place: Path, project: Path, uri: str):
    """Import a project that lies at `place` for as long as that takes, as two containers have theirs at /workspace."""
    project.rename(place)
    try:
        return import_all(place, uri)
    finally:
        place.rename(project)


@pytest.mark.parametrize("way", ["a clone", "a copy made before", "a copy made after"])
def test_two_projects_at_one_place_leave_each_others_runs_alone(project, uri, tmp_path, way):
    other, place = tmp_path / "ben", tmp_path / "workspace"
    if way == "a copy made before":
        import_all(project, own(project))
    if way == "a clone":
        make_campaign(other / "results" / "quick", SETTINGS, seeds=(0, 1))
    elif way == "a copy made before":
        shutil.copytree(project, other)
    as_at(place, project, uri)
    if way == "a copy made after":
        shutil.copytree(project, other)
    make_run(other / "results" / "quick", "ptb", "none", None, 1, best=(60.0, 50.0))
    assert as_at(place, other, uri).written == 6
    assert as_at(place, project, uri).written == 0
    assert as_at(place, other, uri).written == 0
    found = all_runs(uri)
    assert (
        len(found) == len({(run.info.run_name, run.data.tags["spectralgru.project"]) for run in found}) == 12
    )
    assert len(all_runs(uri, deleted=True)) == 0


def test_a_run_trained_again_replaces_its_own_projects_alone(project, uri, tmp_path):
    other = tmp_path / "ben"
    shutil.copytree(project, other)
    for folder in (project, other):
        import_all(folder, uri)
    kept = {run.info.run_id for run in all_runs(uri)}
    make_run(project / "results" / "quick", "ptb", "none", None, 1, best=(60.0, 50.0))
    import_all(project, uri)
    gone = kept - {run.info.run_id for run in all_runs(uri)}
    assert len(gone) == 2
    assert len(all_runs(uri)) == 12
    assert import_all(other, uri).written == 0


def test_a_moved_project_has_every_run_once_and_nothing_at_its_old_place(project, tmp_path):
    import_all(project, own(project))
    before = {run.info.run_id for run in all_runs(own(project))}
    moved = tmp_path / "deeper" / "moved here"
    moved.parent.mkdir()
    project.rename(moved)
    assert import_all(moved, own(moved)).written == 0
    make_run(moved / "results" / "quick", "ptb", "none", None, 1, best=(60.0, 50.0))
    assert import_all(moved, own(moved)).written == 2
    found = all_runs(own(moved))
    assert len(found) == 6
    assert len(before & {run.info.run_id for run in found}) == 4
    assert all(str(moved).replace(" ", "%20") in run.info.artifact_uri for run in found)
    readable(own(moved))
    assert not project.exists()
    moved.rename(project)  # and back
    assert import_all(project, own(project)).written == 0
    readable(own(project))


def test_a_moved_project_finds_its_runs_in_a_shared_store(project, uri, tmp_path):
    import_all(project, uri)
    project.rename(tmp_path / "moved")
    assert import_all(tmp_path / "moved", uri).written == 0
    assert len(all_runs(uri)) == 6


def test_a_copied_project_takes_its_store_over_and_leaves_the_other_alone(project, tmp_path):
    import_all(project, own(project))
    other = tmp_path / "ben"
    shutil.copytree(project, other)
    there = {p: p.stat().st_mtime_ns for p in project.rglob("*") if "mlflow.db" not in p.name}
    assert import_all(other, own(other)).written == 0
    make_run(other / "results" / "quick", "ptb", "none", None, 1, best=(60.0, 50.0))
    assert import_all(other, own(other)).written == 2
    assert len(all_runs(own(other))) == 6
    readable(own(other))
    assert {p: p.stat().st_mtime_ns for p in project.rglob("*") if "mlflow.db" not in p.name} == there
    assert import_all(project, own(project)).written == 0


def test_artifacts_that_were_lost_are_made_again(project):
    import_all(project, own(project))
    shutil.rmtree(project / "mlartifacts")
    assert import_all(project, own(project)).written == 4
    assert len(all_runs(own(project))) == 6
    readable(own(project))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"id": 5}', '{"id": "x", "inode": 0, "former": []}', "\xff"]
)
def test_a_damaged_id_is_made_anew(project, uri, text):
    import_all(project, uri)
    (project / "results" / "quick" / FILE).write_text(text, encoding="latin-1")
    assert import_all(project, uri).written == 6
    assert import_all(project, uri).written == 0


def test_results_that_may_only_be_read_keep_one_id(project, uri, monkeypatch):
    def refused(path, value):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(
        "spectralgru.pipeline.tracking.project.write_json", refused
    )  # root may write everywhere
    assert import_all(project, uri).written == 6
    assert import_all(project, uri).written == 0
    assert not (project / "results" / "quick" / FILE).exists()


def test_runs_of_an_earlier_version_are_replaced_in_ones_own_store(project):
    import_all(project, own(project))
    client, root = open_store(own(project)), project / "results" / "quick"
    for run in all_runs(own(project)):  # as they were marked
        client.set_tag(
            run.info.run_id, "spectralgru.directory", str(root / run.data.tags["spectralgru.directory"])
        )
        client.set_tag(run.info.run_id, "spectralgru.content", "3")
        client.delete_tag(run.info.run_id, "spectralgru.project")
    assert import_all(project, own(project)).written == 6
    assert len(all_runs(own(project))) == 6


def test_an_experiment_kept_elsewhere_is_named_not_written_to(project, database, tmp_path):
    import_all(project, database)
    client = open_store(database)
    location = client.get_experiment_by_name(PTB).artifact_location
    away = Path(location.removeprefix("file://")).parents[3]
    os.chdir("/")
    away.rename(tmp_path.parent / f"{tmp_path.name}-away")
    try:
        with pytest.raises(RunError, match="mlartifacts, which is not on this machine or was moved"):
            import_all(tmp_path.parent / f"{tmp_path.name}-away" / "anna", database)
        assert not away.exists()
    finally:
        (tmp_path.parent / f"{tmp_path.name}-away").rename(away)


def test_every_run_tells_its_source_commit_and_data_and_the_experiment_its_kind(project):
    import_all(project, own(project))
    record = json.loads(next(project.rglob("run.json")).read_text())
    client = open_store(own(project))
    assert client.get_experiment_by_name(PTB).tags["mlflow.experimentKind"] == "custom_model_development"
    for run in all_runs(own(project)):
        assert run.data.tags["mlflow.source.name"] == "spectralgru"
        assert run.data.tags["mlflow.source.git.commit"] == record["git_commit"]
        [used] = run.inputs.dataset_inputs
        assert used.dataset.digest == record["data_sha256"][:36]


def test_an_experiment_of_an_earlier_version_gets_its_kind(project):
    client = open_store(own(project))
    made = client.create_experiment(PTB)
    import_all(project, own(project))
    assert client.get_experiment(made).tags["mlflow.experimentKind"] == "custom_model_development"
