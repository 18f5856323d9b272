"""Import of run directories.

An experiment `spectralgru/<scale>/<corpus>` holds one parent run per setting, below it one run per run directory, and
one run `results` with the figures. What changed on disk is replaced, what did not is left alone.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from spectralgru.errors import InputError, RunError
from spectralgru.files import sha256
from spectralgru.records import read_run
from spectralgru.results.load import RunFiles
from spectralgru.tracking import convert
from spectralgru.tracking.convert import Point
from spectralgru.tracking.metrics import log_metrics
from spectralgru.tracking.store import artifact_root, exclusive, first_line, open_store, tracking_uri

FILES = ("run.json", "history.csv", "steps.csv", "model.safetensors")
DIRECTORY, CONTENT = (
    "spectralgru.directory",
    "spectralgru.content",
)  # tags: what a run shows, in which version
LAYOUT = "1"  # changes when the import itself changes, so that everything is imported anew
# A diverged training did not succeed: MLflow's red mark finds it at a glance, the tag `status` says which it was.
STATUS = {"finished": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}


@dataclass
class Tracked:
    """What `track` did: MLflow runs (parents included) made or made anew, and left as they were."""

    uri: str
    written: int = 0
    unchanged: int = 0


def track(root: Path, runs: Sequence[Path], uri: str | None = None, figures: Sequence[Path] = ()) -> Tracked:
    """Bring MLflow up to date with the run directories `runs` below `root` (`results/<scale>`) and with `figures`.

    Give all seeds of a setting together: its parent run sums up those given. A figure named `<corpus>-...` goes to
    that corpus, any other file to all. Directories without `run.json` (still training) are passed over. Raises
    InputError for a record that cannot be read, RunError for a store that cannot be written.
    """
    uri = tracking_uri(uri)
    experiments: dict[tuple[str, str], dict[str, list[RunFiles]]] = {}
    for directory in map(Path, runs):
        if (directory / "run.json").exists():
            item = RunFiles(directory.resolve(), read_run(directory))
            settings = experiments.setdefault((item.run.scale, item.run.corpus), {})
            settings.setdefault(item.run.setting, []).append(item)
    corpora = [corpus for _, corpus in experiments]
    client, done = open_store(uri), Tracked(uri)
    with exclusive(uri):
        try:
            for (scale, corpus), settings in experiments.items():
                experiment = Experiment(client, uri, f"spectralgru/{scale}/{corpus}", done)
                for items in settings.values():
                    experiment.track_setting(items)
                others = tuple(f"{other}-" for other in corpora if other != corpus)
                mine = [path for path in map(Path, figures) if not path.name.startswith(others)]
                experiment.track_figures(Path(root).resolve() / "figures" / corpus, mine)
        except InputError:
            raise
        except Exception as error:  # whatever the store's driver raises
            raise RunError(
                f"{uri}: MLflow store cannot be written ({first_line(error)}); track again when it can: "
                "nothing is lost, and nothing will be there twice"
            ) from error
    return done


class Experiment:
    """One MLflow experiment and the runs found in it, by the directory that each shows."""

    def __init__(self, client: Any, uri: str, name: str, done: Tracked) -> None:
        self.client, self.done = client, done
        self.id = self._find(uri, name)
        self.known: dict[str, list[Any]] = {}
        token = None
        while True:
            page = client.search_runs([self.id], max_results=1000, page_token=token)
            for run in page:
                self.known.setdefault(run.data.tags.get(DIRECTORY, ""), []).append(run)
            token = page.token
            if not token:
                break

    def track_setting(self, items: Sequence[RunFiles]) -> None:
        """One parent run with the summary, one run per seed; all of them left alone when nothing changed."""
        contents = [_content([item.directory / "run.json"]) for item in items]
        directory, run = items[0].directory.parent, items[0].run
        whole = hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()
        children = [self._current(item.directory, c) for item, c in zip(items, contents, strict=True)]
        if self._current(directory, whole) and all(children):
            self.done.unchanged += 1 + len(items)
            return
        start = min(convert.started(item.run) for item in items)
        parent = self._replace(directory, run.setting, start, convert.setting_tags(run))
        for item, content, child in zip(items, contents, children, strict=True):
            if child:
                self.client.set_tag(child.info.run_id, "mlflow.parentRunId", parent.info.run_id)
                self.done.unchanged += 1
            else:
                self._track_run(item, content, parent.info.run_id)
        runs = [item.run for item in items]
        self._finish(parent, whole, convert.setting_metrics(runs), {}, max(map(convert.ended, runs)))

    def track_figures(self, directory: Path, figures: Sequence[Path]) -> None:
        """One run `results` that carries the files as artifacts."""
        if not figures:
            return
        content = _content(figures)
        if self._current(directory, content):
            self.done.unchanged += 1
            return
        run = self._replace(directory, "results", None, {})
        self._artifacts(run, figures)
        self._finish(run, content, [], {}, None)

    def _track_run(self, item: RunFiles, content: str, parent: str) -> None:
        run = item.run
        tags = convert.run_tags(run) | {"mlflow.parentRunId": parent}
        made = self._replace(item.directory, f"{run.setting} seed {run.seed}", convert.started(run), tags)
        self._artifacts(made, [path for name in FILES if (path := item.directory / name).exists()])
        points, params = convert.run_metrics(item), convert.run_params(run)
        self._finish(made, content, points, params, convert.ended(run), STATUS[run.status])

    def _current(self, directory: Path, content: str) -> Any:
        """The run that shows `directory` as it is; None when there is none, an older one or more than one."""
        found = self.known.get(str(directory), [])
        return found[0] if len(found) == 1 and found[0].data.tags.get(CONTENT) == content else None

    def _replace(self, directory: Path, name: str, start: int | None, tags: Mapping[str, str]) -> Any:
        for old in self.known.pop(str(directory), []):
            self.client.delete_run(old.info.run_id)
        return self.client.create_run(self.id, start, {**tags, DIRECTORY: str(directory)}, name)

    def _finish(
        self,
        run: Any,
        content: str,
        points: Sequence[Point],
        params: Mapping[str, str],
        end: int | None,
        status: str = "FINISHED",
    ) -> None:
        """Write the numbers; the tag CONTENT, written after them, says that nothing is missing."""
        from mlflow.entities import Param, RunTag

        run_id = run.info.run_id
        log_metrics(self.client, run_id, points)
        listed = [Param(name, value) for name, value in params.items()]
        self.client.log_batch(run_id, params=listed, tags=[RunTag(CONTENT, content)])
        self.client.set_terminated(run_id, status, end)
        self.done.written += 1

    def _artifacts(self, run: Any, files: Sequence[Path]) -> None:
        """Hard links where the artifacts lie on the same disk (run directories are never edited in place)."""
        place = urlparse(run.info.artifact_uri)
        if place.scheme not in ("", "file"):
            for file in files:
                self.client.log_artifact(run.info.run_id, str(file))
            return
        folder = Path(unquote(place.path))
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copy2(file, folder / file.name)

    def _find(self, uri: str, name: str) -> str:
        from mlflow.entities import LifecycleStage

        found = self.client.get_experiment_by_name(name)
        if found is None:
            folder = artifact_root(uri)
            location = folder / name if folder else None
            return str(self.client.create_experiment(name, location and location.as_uri()))
        if found.lifecycle_stage == LifecycleStage.DELETED:
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def _content(files: Sequence[Path]) -> str:
    lines = [f"{path.name} {sha256(path)}" for path in sorted(files)]
    return hashlib.sha256("\n".join([LAYOUT, *lines]).encode()).hexdigest()
