"""One MLflow experiment, and its runs by the directory that each of them shows."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectralgru.files import sha256
from spectralgru.pipeline.results.load import RunFiles
from spectralgru.pipeline.tracking import convert, inputs, live, metrics
from spectralgru.pipeline.tracking.convert import Point
from spectralgru.pipeline.tracking.live import LiveRun
from spectralgru.pipeline.tracking.project import Project
from spectralgru.pipeline.tracking.store import find_experiment, local_folder, sqlite_path
from spectralgru.records import RUN_FILES, check_files, files_here

FILES = ("run.json", *RUN_FILES)
# Tags: the project and the directory that a run shows, and the version of its content.
PROJECT, DIRECTORY, CONTENT = "spectralgru.project", "spectralgru.directory", "spectralgru.content"
PARENT = "mlflow.parentRunId"
LAYOUT = "5"  # raised when the import changes, so that everything is imported again
# MLflow's red mark shows at a glance that a diverged training did not succeed; the tag `status` says what happened.
STATUS = {
    "finished": "FINISHED",
    "diverged": "FAILED",
    "running": "RUNNING",
    "interrupted": "KILLED",
}


@dataclass
class Tracked:
    """What `track` did: the numbers of MLflow runs, including parents, that it wrote and that it left unchanged."""

    uri: str
    written: int = 0
    unchanged: int = 0
    running: int = 0  # runs that have no record yet, in progress or interrupted
    models: list[str] = field(default_factory=list)  # registered, `name version`
    not_registered: list[str] = field(default_factory=list)  # and why


class MlflowExperiment:
    """Brings a project's runs of an experiment up to date; those of other projects are ignored."""

    def __init__(
        self, client: Any, uri: str, scale: str, corpus: str, project: Project, done: Tracked
    ) -> None:
        self.client, self.project, self.done = client, project, done
        self.id = find_experiment(client, uri, scale, corpus)
        self.known: dict[str, list[Any]] = {}
        own = project.owns(sqlite_path(uri))
        query = "" if own else f"tags.`{PROJECT}` = '{project.id}'"
        token = None
        while True:
            page = client.search_runs([self.id], query, max_results=1000, page_token=token)
            for run in page:
                directory, maker = run.data.tags.get(DIRECTORY, ""), run.data.tags.get(PROJECT)
                if maker in project.former:  # the database was copied with the project
                    client.set_tag(run.info.run_id, PROJECT, project.id)
                elif maker is None:  # earlier versions identified runs by the absolute path
                    directory = project.adopted(directory)
                elif maker != project.id:
                    continue
                self.known.setdefault(directory, []).append(run)
            token = page.token
            if not token:
                break

    def track_setting(
        self, items: Sequence[RunFiles], under_way: Sequence[LiveRun], benchmark: Path
    ) -> dict[Path, str]:
        """Write a parent run that sums up finished seeds, and a run per seed; return the id of each finished one."""
        contents = [_content([item.directory / "run.json"]) for item in items]
        whole = _digest(
            [*sorted(contents), *sorted(self.project.path(run.directory) for run in under_way)]
            + [sha256(path) for path in (benchmark,) if path.exists()]
        )
        directory = [*(item.directory for item in items), *(run.directory for run in under_way)][0].parent
        if parent := self._current(directory, whole):
            self.done.unchanged += 1
        else:
            parent = self._make_parent(directory, whole, items, under_way, benchmark)
        ids = {}
        for item, content in zip(items, contents, strict=True):
            if child := self._current(item.directory, content, _files(item.directory)):
                self._move(child, parent)
                self.done.unchanged += 1
            else:
                child = self._track_run(item, content, parent)
            ids[item.directory] = child.info.run_id
        for run in under_way:
            self._track_live(run, parent)
        return ids

    def track_figures(self, directory: Path, figures: Sequence[Path]) -> None:
        """Write a run `results` with the files as artifacts."""
        if not figures:
            return
        content = _content(figures)
        if self._current(directory, content, figures):
            self.done.unchanged += 1
            return
        run = self._replace(directory, "results", None, {})
        self._artifacts(run, figures)
        self._finish(run, content)

    def _make_parent(
        self,
        directory: Path,
        content: str,
        items: Sequence[RunFiles],
        under_way: Sequence[LiveRun],
        benchmark: Path,
    ) -> Any:
        runs = [item.run for item in items]
        starts = [*map(convert.started, runs), *(run.started for run in under_way)]
        shown = (runs or under_way)[0]
        ended = Counter(run.status for run in runs) + Counter(run.state for run in under_way)
        status = ", ".join(f"{n} {state}" for state, n in ended.items())
        tags = convert.setting_tags(shown.corpus, shown.scale, shown.setting)
        tags |= convert.commit_tags(runs) | {"status": status}
        parent = self._replace(directory, shown.setting, min(starts), tags)
        points: list[Point] = []
        params: dict[str, str] = {}
        end = None
        if runs:
            end, params = max(map(convert.ended, runs)), convert.setting_params(runs)
            points = convert.setting_metrics(items) + inputs.usage(benchmark, end)
        metrics.insert(self.client, parent.info.run_id, points, params)
        if len({run.data_sha256 for run in runs}) == 1:
            inputs.log_dataset(self.client, parent.info.run_id, runs[0])
        self._finish(parent, content, end, "RUNNING" if under_way else "FINISHED")
        return parent

    def _track_run(self, item: RunFiles, content: str, parent: Any) -> Any:
        check_files(item.directory, item.run, files_here(item.directory))
        run, points, shift = item.run, convert.run_metrics(item), 0
        tags = convert.run_tags(run) | {PARENT: parent.info.run_id}
        if found := self._watched(item.directory, live.read_lines(item.directory)):
            made, epochs = found
            run_id = made.info.run_id
            self.client.set_tag(run_id, CONTENT, "")  # if interrupted from here on, it is written again
            shift = made.info.start_time - convert.started(run)  # its curves began at an estimated start
            points = [(name, value, time + shift, step) for name, value, time, step in points]
            new = [p for p in points if not (p[0].startswith("epoch/") and p[3] <= epochs)]
            metrics.add(self.client, run_id, new, convert.run_params(run), tags)
        else:
            name = f"{run.setting} seed {run.seed}"
            made = self._replace(item.directory, name, convert.started(run), tags)
            metrics.insert(self.client, made.info.run_id, points, convert.run_params(run))
        self._artifacts(made, _files(item.directory))
        inputs.log_dataset(self.client, made.info.run_id, run)
        self._finish(made, content, convert.ended(run) + shift, STATUS[run.status])
        return made

    def _track_live(self, run: LiveRun, parent: Any) -> None:
        """Add the new epochs; a training that started afresh gets a new run."""
        self.done.running += 1
        found = self._watched(run.directory, run.lines)
        if found is None:
            tags = convert.setting_tags(run.corpus, run.scale, run.setting)
            tags |= {"seed": str(run.seed), PARENT: parent.info.run_id}
            made = self._replace(run.directory, f"{run.setting} seed {run.seed}", run.started, tags)
            shown, status = 0, ""
        else:
            made, shown = found
            self._move(made, parent)
            status = made.data.tags.get("status", "")
        if found and shown == len(run.lines) and status == run.state:
            self.done.unchanged += 1
            return
        points = list(run.points(made.info.start_time, shown))
        tags = {CONTENT: live.content(run.lines), "status": run.state}
        metrics.add(self.client, made.info.run_id, points, tags=tags)
        self.client.update_run(made.info.run_id, STATUS[run.state])
        self.done.written += 1

    def _watched(self, directory: Path, lines: list[str]) -> tuple[Any, int] | None:
        """The run that showed this training in progress, and the number of epochs it shows."""
        runs = self.known.get(self.project.path(directory), [])
        if len(runs) != 1:
            return None
        epochs = live.shown_epochs(runs[0].data.tags.get(CONTENT, ""), lines)
        return None if epochs is None else (runs[0], epochs)

    def _current(self, directory: Path, content: str, files: Sequence[Path] = ()) -> Any:
        """The run that shows `directory` as it is, with its files; None if there is no such run, or several."""
        runs = self.known.get(self.project.path(directory), [])
        if len(runs) != 1 or runs[0].data.tags.get(CONTENT) != content:
            return None
        folder = local_folder(runs[0].info.artifact_uri)
        return runs[0] if folder is None or all((folder / file.name).exists() for file in files) else None

    def _move(self, child: Any, parent: Any) -> None:
        if child.data.tags.get(PARENT) != parent.info.run_id:
            self.client.set_tag(child.info.run_id, PARENT, parent.info.run_id)

    def _replace(self, directory: Path, name: str, start: int | None, tags: Mapping[str, str]) -> Any:
        path = self.project.path(directory)
        for old in self.known.pop(path, []):
            self.client.delete_run(old.info.run_id)
        tags = {**convert.SOURCE, **tags, PROJECT: self.project.id, DIRECTORY: path}
        return self.client.create_run(self.id, start, tags, name)

    def _finish(self, run: Any, content: str, end: int | None = None, status: str = "FINISHED") -> None:
        """The tag CONTENT, written last, says that nothing is missing."""
        if status != "RUNNING":
            self.client.set_terminated(run.info.run_id, status, end)
        self.client.set_tag(run.info.run_id, CONTENT, content)
        self.done.written += 1

    def _artifacts(self, run: Any, files: Sequence[Path]) -> None:
        """Attach files, by hard links on the same disk (run directories are never edited in place)."""
        folder = local_folder(run.info.artifact_uri)
        if folder is None:
            for file in files:
                self.client.log_artifact(run.info.run_id, str(file))
            return
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copy2(file, folder / file.name)


def _files(directory: Path) -> list[Path]:
    return [path for name in FILES if (path := directory / name).exists()]


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([LAYOUT, *lines]).encode()).hexdigest()


def _content(files: Sequence[Path]) -> str:
    return _digest(f"{path.name} {sha256(path)}" for path in sorted(files))
