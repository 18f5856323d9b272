"""A run record in MLflow's terms: parameters, tags, and metrics with their real times. Independent of the store."""

import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from spectralgru.pipeline.results.load import RunFiles, flatten
from spectralgru.pipeline.results.outcome import succeeded
from spectralgru.records import HISTORY_COLUMNS, STEP_COLUMNS, Run
from spectralgru.setting import Setting, number

Point = tuple[str, float, int, int]  # name, value, time (milliseconds since 1970), step

EPOCH_COLUMNS = HISTORY_COLUMNS[1:]
MEAN_COLUMNS = ("valid_loss", "valid_metric")  # whose mean over seeds is the curve of a setting
FIGURES = ("epoch", "valid", "test")  # of the best and of the last epoch
TRACE_COLUMNS = STEP_COLUMNS[2:]
TRACE_POINTS = 100  # for each run and column, enough for a curve; the artifact steps.csv has the rest
SOURCE = {"mlflow.source.name": "spectralgru", "mlflow.source.type": "LOCAL"}
COMMIT = "mlflow.source.git.commit"
VALUE_NAMES = {"constraint": "delta", "clipping": "threshold"}


def started(run: Run) -> int:
    """Start of the run in milliseconds since 1970 (0 if the record does not say)."""
    try:
        moment = datetime.fromisoformat(run.started)
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def ended(run: Run) -> int:
    """End of the run in milliseconds since 1970."""
    return started(run) + int(run.wall_seconds * 1000)


def setting_tags(corpus: str, scale: str, name: str) -> dict[str, str]:
    """What all runs of a setting share, finished or not; `name`: the setting's."""
    setting = Setting.parse(name)
    tags = {"corpus": corpus, "scale": scale, "method": setting.method, "setting": name}
    if setting.value is not None:
        tags["value"] = tags[VALUE_NAMES[setting.method]] = number(setting.value)
    return tags


def run_tags(run: Run) -> dict[str, str]:
    """Tags by which runs can be searched; those of a diverged run say when and why."""
    tags = setting_tags(run.corpus, run.scale, run.setting) | {
        "seed": str(run.seed),
        "status": run.status,
        "git_commit": run.git_commit,
        "data_sha256": run.data_sha256,
        "run_key": run.key,
        "host": run.host,
        "device": run.device,
    }
    tags |= commit_tags([run])
    tags |= {f"version.{name}": version for name, version in run.versions.items()}
    tags |= {f"diverged.{name}": str(value) for name, value in (run.diverged or {}).items()}
    return {name: value for name, value in tags.items() if value}


def commit_tags(runs: Sequence[Run]) -> dict[str, str]:
    """The commit of all runs, if it is the same."""
    commits = {run.git_commit for run in runs}
    return {COMMIT: commits.pop()} if len(commits) == 1 and "" not in commits else {}


def run_params(run: Run) -> dict[str, str]:
    """Every parameter under its dotted name, with method, value, seed and the size of the job."""
    params = flatten(run.settings) | {"method": run.method, "seed": run.seed}
    params |= {"threads": run.threads, "replicas": run.replicas}
    if run.value is not None:
        params[VALUE_NAMES[run.method]] = number(run.value)
    return {name: str(value) for name, value in params.items()}


def setting_params(runs: Sequence[Run]) -> dict[str, str]:
    """What all runs of a setting have in common."""
    params = run_params(runs[0])
    others = [run_params(run) for run in runs]
    return {
        name: value
        for name, value in params.items()
        if name != "seed" and all(o.get(name) == value for o in others)
    }


def run_metrics(item: RunFiles) -> list[Point]:
    """Curves by epoch, the thinned trace, and the best and final values, without those that are not finite.

    MLflow would store NaN as 0 and infinity as 1.8e308, which would spoil the curve; so it ends where the run diverged.
    """
    run, start = item.run, started(item.run)
    history = item.history
    clock = start + 1000 * history["seconds"].fillna(0).cumsum().to_numpy()
    points = [
        (f"epoch/{name}", value, int(time), int(epoch))
        for name in EPOCH_COLUMNS
        for value, time, epoch in zip(history[name], clock, history["epoch"], strict=True)
    ]
    points += _trace(item.steps, history, clock, start, ended(run))
    for moment, figures in (("best", run.best), ("final", run.final)):
        at = int(figures.get("epoch", 0))
        points += [(f"{moment}_{name}", figures[name], ended(run), at) for name in FIGURES if name in figures]
    points.append(("success", float(succeeded(run)), ended(run), 0))
    return [point for point in points if np.isfinite(point[1])]


def setting_metrics(items: Sequence[RunFiles]) -> list[Point]:
    """Success rate, and over successful seeds mean and deviation of the best values and the mean validation curve."""
    runs = [item.run for item in items]
    good, time = [item for item in items if succeeded(item.run)], max(map(ended, runs))
    points = [("success", len(good) / len(runs), time, 0), ("seeds", float(len(runs)), time, 0)]
    for name in ("valid", "test"):
        values = [item.run.best[name] for item in good if name in item.run.best]
        if values:
            points.append((f"best_{name}", statistics.fmean(values), time, 0))
        if len(values) > 1:
            points.append((f"best_{name}_sd", statistics.stdev(values), time, 0))
    if good:
        means = pd.concat([item.history for item in good]).groupby("epoch")[list(MEAN_COLUMNS)].mean()
        points += [
            (f"epoch/{name}", value, time, int(epoch))
            for name in MEAN_COLUMNS
            for epoch, value in zip(means.index, means[name], strict=True)
        ]
    return points


def _trace(
    steps: pd.DataFrame, history: pd.DataFrame, clock: np.ndarray, start: int, end: int
) -> Iterator[Point]:
    """At most TRACE_POINTS points per column: the largest finite value of each interval, at the interval's end."""
    last = steps.groupby("epoch")["step"].max().reindex(history["epoch"]).to_numpy()
    whole = np.isfinite(last)
    every = max(1, -(-len(steps) // TRACE_POINTS))
    interval = np.arange(len(steps)) // every
    thinned = steps.replace([np.inf, -np.inf], np.nan).groupby(interval).max()
    position = thinned["step"].to_numpy()
    knots = np.concatenate([[0], last[whole], [max(last[whole].max(initial=0), position.max(initial=0)) + 1]])
    times = np.interp(position, knots, np.concatenate([[start], clock[whole], [end]]))
    for name in thinned.columns.intersection(list(TRACE_COLUMNS)):  # old records have no growth
        for value, time, step in zip(thinned[name], times, position, strict=True):
            yield f"trace/{name}", value, int(time), int(step)
