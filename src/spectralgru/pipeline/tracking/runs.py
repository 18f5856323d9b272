"""Imports run directories.

An experiment `spectralgru/<scale>/<corpus>` holds a parent run per setting, below it a run per run directory, and a run
`results` with the figures. Runs that changed on disk are replaced, others left alone; a run in progress grows into the
finished run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spectralgru.errors import InputError, RunError
from spectralgru.pipeline.redaction import without_secrets
from spectralgru.pipeline.results.load import RunFiles
from spectralgru.pipeline.tracking.experiment import MlflowExperiment, Tracked
from spectralgru.pipeline.tracking.live import LiveRun, read_live
from spectralgru.pipeline.tracking.project import project_at
from spectralgru.pipeline.tracking.registry import register_best
from spectralgru.pipeline.tracking.store import exclusive, first_line, open_store, tracking_uri
from spectralgru.records import Run, read_run


@dataclass
class Seeds:
    """The runs of one setting, by progress."""

    finished: list[RunFiles] = field(default_factory=list)
    under_way: list[LiveRun] = field(default_factory=list)


def track(
    root: Path,
    runs: Sequence[Path],
    uri: str | None = None,
    figures: Sequence[Path] = (),
    data: Path = Path("data"),
    benchmarks: Path = Path("logs/benchmarks/train"),
    scale: str | None = None,
) -> Tracked:
    """Bring MLflow up to date with the run directories `runs` below `root` (`results/<scale>`) and with `figures`.

    Give all seeds of a setting together, since its parent run sums up those given. A figure named `<corpus>-...` goes
    to that corpus, any other file to all. When all runs of a corpus have ended, its best model is registered if
    `data`/prepared has the corpus it was trained on. `benchmarks`/<scale>/<corpus>/<setting>.tsv are Snakemake's
    measurements. Runs in progress do not record their `scale`; by default it is the name of `root`. Raises InputError
    for a record that cannot be read, RunError for a store that cannot be written.
    """
    root, uri = Path(root), tracking_uri(uri)
    experiments = _gather(runs, scale or root.resolve().name)
    corpora = [corpus for _, corpus in experiments]
    client, done = open_store(uri), Tracked(without_secrets(uri))
    if not experiments:
        return done
    try:
        with exclusive(uri, root):
            project = project_at(root)
            for (scale, corpus), settings in experiments.items():
                experiment = MlflowExperiment(client, uri, scale, corpus, project, done)
                ids: dict[Path, str] = {}
                for name, setting in settings.items():
                    benchmark = benchmarks / scale / corpus / f"{name}.tsv"
                    ids |= experiment.track_setting(setting.finished, setting.under_way, benchmark)
                others = tuple(f"{other}-" for other in corpora if other != corpus)
                of_corpus = [path for path in map(Path, figures) if not path.name.startswith(others)]
                experiment.track_figures(root.resolve() / "figures" / corpus, of_corpus)
                # While runs are in progress, the best so far may be overtaken.
                if not any(setting.under_way for setting in settings.values()):
                    finished = [item for setting in settings.values() for item in setting.finished]
                    register_best(client, experiment, finished, ids, data)
    except (InputError, RunError):
        raise
    except Exception as error:  # any error of the store's driver
        raise RunError(
            f"{done.uri}: MLflow store cannot be written ({first_line(error, uri)}); track again when it can: "
            "nothing is lost, and nothing will be duplicated"
        ) from error
    return done


def follow(step: Callable[[], Tracked], runs: Sequence[Path], every: float) -> Tracked:
    """Call `step` (a `track` of `runs`) every `every` seconds until all runs have ended; returns the last result."""
    while True:
        ended = all((directory / "run.json").exists() for directory in runs)  # checked before the import
        done = step()
        if ended:
            return done
        time.sleep(every)


def _gather(runs: Sequence[Path], scale: str) -> dict[tuple[str, str], dict[str, Seeds]]:
    """The runs by scale and corpus, then by setting; directories in which nothing has begun are skipped."""
    experiments: dict[tuple[str, str], dict[str, Seeds]] = {}

    def setting_of(run: Run | LiveRun) -> Seeds:
        return experiments.setdefault((run.scale, run.corpus), {}).setdefault(run.setting, Seeds())

    for directory in map(Path, runs):
        if (directory / "run.json").exists():
            item = RunFiles(directory.resolve(), read_run(directory))
            setting_of(item.run).finished.append(item)
        elif run := read_live(directory, scale):
            setting_of(run).under_way.append(run)
    return experiments
