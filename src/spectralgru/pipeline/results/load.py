"""Loads and checks the runs behind tables and figures, before anything is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from spectralgru.errors import InputError
from spectralgru.records import TRACES, Run, check_files, read_run, run_path
from spectralgru.setting import Setting, number


@dataclass(frozen=True)
class RunFiles:
    """The record of a run and its traces, which are read on first use."""

    directory: Path
    run: Run

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row for each epoch, columns `records.HISTORY_COLUMNS`; none before the first is finished."""
        return _read(self.directory / "history.csv")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row for each interval of steps, columns `records.STEP_COLUMNS`; values may be NaN or infinite."""
        return _read(self.directory / "steps.csv")


Runs = Mapping[Setting, list[RunFiles]]  # on one corpus: for each setting a list in the order of the seeds


@dataclass(frozen=True)
class Campaign:
    """All runs of a scale, loaded once for tables, figures, claims and samples."""

    root: Path  # results/<scale>
    scale: str
    corpora: Mapping[str, Runs]

    @classmethod
    def load(
        cls, root: Path, settings: Mapping[str, Sequence[Setting]], seeds: Sequence[int], scale: str
    ) -> "Campaign":
        """Load every setting of every corpus. Raises InputError as `load_runs` does."""
        root = Path(root)
        return cls(
            root, scale, {c: load_runs(root, c, chosen, seeds, scale) for c, chosen in settings.items()}
        )

    @property
    def words(self) -> list[str]:
        """The corpora that have words."""
        first = {corpus: next(iter(runs.values()))[0].run for corpus, runs in self.corpora.items()}
        return [corpus for corpus, run in first.items() if run.metric == "perplexity"]


def load_runs(root: Path, corpus: str, settings: Sequence[Setting], seeds: Sequence[int], scale: str) -> Runs:
    """Load all runs on `corpus`.

    Raises InputError naming the first run that is missing or damaged, and the remedy.
    """
    return {
        setting: [_load(run_path(root, corpus, *setting, seed), setting, seed, scale) for seed in seeds]
        for setting in settings
    }


def _load(directory: Path, setting: Setting, seed: int, scale: str) -> RunFiles:
    if not (directory / "run.json").exists():
        method, value = setting
        chosen = f"--method {method}" + ("" if value is None else f" --value {number(value)}")
        raise InputError(
            f"{directory}: run missing; make it with `spectralgru train --corpus {directory.parts[-3]} {chosen} "
            f"--seeds {seed} --scale {scale}`, or let `snakemake` make all of them"
        )
    run = read_run(directory)
    check_files(directory, run, TRACES)
    return RunFiles(directory, run)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names: `model.hidden_size`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=float)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train the run again") from None
