"""A table for each corpus, and sentences, from the baselines' runs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from spectralgru.pipeline.experiments.base import Answer, Part, read_record
from spectralgru.pipeline.experiments.remedies.grid import COST, Baseline, root_of
from spectralgru.pipeline.params.experiments import BeyondOn
from spectralgru.pipeline.results.outcome import succeeded
from spectralgru.pipeline.results.render import Cell, Rendered, Row, write_table
from spectralgru.pipeline.results.tables import METRICS, describe
from spectralgru.records import Run, read_run, run_path

TITLE = "What do other remedies, cells, optimisers and depths come to?"


@dataclass(frozen=True)
class Line:
    """The results of one baseline."""

    baseline: Baseline
    rate: float  # the best of those tried
    tried: Sequence[Run]  # the first seed at every rate
    runs: Sequence[Run]  # every seed at the best rate
    seconds: float  # mean of a training step; flossing acts only at some of them

    @property
    def finished(self) -> list[Run]:
        """The runs at the best rate that were neither lost nor broken."""
        return [run for run in self.runs if succeeded(run)]

    @property
    def rates(self) -> list[float]:
        """The rates at which the first seed finishes."""
        return [run.settings["learning_rate"] for run in self.tried if succeeded(run)]

    def values(self, split: str) -> list[float]:
        """The metric of the best epoch of each finished run."""
        return [run.best[split] for run in self.finished]

    def mean(self, split: str) -> float | None:
        """Mean of these values; None unless every run finished."""
        return statistics.fmean(self.values(split)) if len(self.finished) == len(self.runs) else None


@dataclass(frozen=True)
class Field:
    """All baselines of a corpus."""

    corpus: str
    baselines: Sequence[Baseline]
    seeds: Sequence[int]
    on: BeyondOn

    def lines(self, out: Path) -> list[Line]:
        """Read the records of the parts."""
        seconds = read_record(Part(self.corpus, COST).record(out))["seconds"]
        return [self._line(out, baseline, seconds[baseline.name]) for baseline in self.baselines]

    def _line(self, out: Path, baseline: Baseline, seconds: Sequence[float]) -> Line:
        def run(rate: float, seed: int) -> Run:
            root = root_of(out, baseline, rate)
            return read_run(run_path(root, self.corpus, baseline.method, baseline.value, seed))

        rate = read_record(Part(self.corpus, baseline.name).record(out))["rate"]
        tried = [run(r, self.seeds[0]) for r in self.on.rates[baseline.optimizer]]
        return Line(
            baseline, rate, tried, [run(rate, seed) for seed in self.seeds], statistics.fmean(seconds)
        )


def sum_up(fields: Sequence[Field], out: Path) -> Answer:
    """Write `baselines_<corpus>` below `out`."""
    tables, answer = [], []
    for field in fields:
        lines = field.lines(out)
        tables.append(write_table(out / f"baselines_{field.corpus}", tabulate(lines), _shown(field, lines)))
        answer += sentences(field, lines)
    return Answer(TITLE, answer, tables, [])


def tabulate(lines: Sequence[Line]) -> pd.DataFrame:
    """One row for each baseline: means and sample standard deviations over the finished runs at the best rate."""
    rows = []
    for line in lines:
        row: dict[str, object] = {
            "network": line.baseline.network,
            "method": line.baseline.label,
            "optimizer": line.baseline.optimizer,
            "best_rate": line.rate,
            "rates_finished": len(line.rates),
            "rates_tried": len(line.tried),
            "finished": len(line.finished),
            "runs": len(line.runs),
        }
        for split in ("valid", "test"):
            values = line.values(split)
            row[split] = statistics.fmean(values) if values else None
            row[f"{split}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        row |= {"seconds_per_step": line.seconds, "of_clipping": _of_clipping(line, lines)}
        rows.append(row)
    return pd.DataFrame(rows)


def _of_clipping(line: Line, lines: Sequence[Line]) -> float:
    """Time of a step relative to the same network's step with clipping."""
    same = (other for other in lines if other.baseline.network == line.baseline.network)
    return line.seconds / next(other.seconds for other in same if other.baseline.method == "clipping")


def _shown(field: Field, lines: Sequence[Line]) -> Rendered:
    run = lines[0].runs[0]
    metric, digits = METRICS[run.metric], 1 if run.metric == "perplexity" else 2
    heads = ("best rate", "rates that finish", "success", f"validation {metric}", f"test {metric}")
    best = {
        split: min((m for line in lines if (m := line.mean(split)) is not None), default=None)
        for split in ("valid", "test")
    }

    def cells(line: Line) -> tuple[Cell, ...]:
        texts = [Cell(f"{line.rate:g}"), Cell(f"{len(line.rates)}/{len(line.tried)}")]
        texts.append(Cell(f"{len(line.finished)}/{len(line.runs)}"))
        for split in ("valid", "test"):
            values = line.values(split)
            text = f"{statistics.fmean(values):.{digits}f}" if values else "n/a"
            text += f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            texts.append(Cell(text, line.mean(split) is not None and line.mean(split) == best[split]))
        texts.append(Cell(f"{1000 * line.seconds:.1f}"))
        return (*texts, Cell(f"{_of_clipping(line, lines):.2f}"))

    rows = tuple(Row(line.baseline.network, "ours", line.baseline.label, cells(line)) for line in lines)
    groups = tuple((head, ("",)) for head in (*heads, "ms per step", "of clipping's"))
    return Rendered(_caption(field, lines), groups, rows)


def _caption(field: Field, lines: Sequence[Line]) -> str:
    run = next(line.runs[0] for line in lines)
    rates = "; ".join(
        f"{optimizer} {', '.join(f'{r:g}' for r in found)}" for optimizer, found in field.on.rates.items()
    )
    return (
        f"Baselines. {field.corpus}, {run.scale} scale: {describe(run)} unless another depth is named; trained by "
        f"a plain PyTorch loop. The first of {len(field.seeds)} seeds chose each baseline's learning rate by its "
        f"validation result ({rates}). Mean ± standard deviation over the runs that finished; best in bold among "
        "those whose runs all finished. GRU and LSTM: torch.nn, without biases. Spectral norm scales the whole "
        "matrix to sigma_1 = 2 - δ, the constraint clips what is above; gates: bound on theirs. AutoClip: percentile "
        "of the norms so far; ZClip: z-score; flossing: strength. Times: mean CPU time of a step on one thread, in "
        "turn with all others, and as a multiple of the same network's step with clipping."
    )


def sentences(field: Field, lines: Sequence[Line]) -> list[str]:
    """What fails, what is best, the constraint beside clipping, what it costs, and how sure the best rates are."""
    metric = METRICS[lines[0].runs[0].metric]
    digits = 1 if metric == "perplexity" else 2
    whole = sorted(
        (line for line in lines if line.mean("valid") is not None), key=lambda x: x.mean("valid") or 0
    )
    lost = [line for line in lines if line.mean("valid") is None]
    some = [line for line in lines if line not in lost and len(line.rates) < len(line.tried)]
    said = [
        f"{field.corpus}: " + (f"{_names(lost)} lose runs even at their best rate" if lost else "at its best rate "
        "every baseline finishes")
        + (f"; {_names(some)} lose the first seed at some of the rates tried" if some else "")
        + "."
    ]  # fmt: skip
    if whole:
        listed = [f"{_name(line)} ({line.mean('valid'):.{digits}f})" for line in whole[:3]]
        place = next((i for i, x in enumerate(whole, 1) if x.baseline == field.baselines[1]), None)
        ranked = f"; {_name(lines[1])} is number {place} of {len(whole)}" if place else ""
        said.append(
            f"{field.corpus}: the lowest validation {metric} is that of {', then '.join(listed)}{ranked}."
        )
    pairs = []
    for network, group in groupby(lines, key=lambda line: line.baseline.network):
        alone = [line for line in group if line.baseline.clip is None and line.baseline.gates is None]
        means = {line.baseline.method: line.mean("test") for line in alone}
        texts = [
            "n/a" if (value := means[method]) is None else f"{value:.{digits}f}"
            for method in ("constraint", "clipping")
        ]
        pairs.append(f"{network} {texts[0]} against {texts[1]}")
    said.append(f"{field.corpus}: test {metric} with the constraint against clipping: {'; '.join(pairs)}.")
    times = [f"{line.baseline.label} {_of_clipping(line, lines):.2f}" for line in lines[1:] if
             line.baseline.network == lines[0].baseline.network]  # fmt: skip
    said.append(f"{field.corpus}: a step takes, as a multiple of clipping's, with {', '.join(times)}.")
    ends = [line for line in whole if len(line.tried) > 1 and line.rate in _ends(field, line)]
    if ends:
        said.append(
            f"{field.corpus}: the best rate is the lowest or highest tried for {_names(ends)}: another may be better."
        )
    return said


def _ends(field: Field, line: Line) -> tuple[float, float]:
    rates = field.on.rates[line.baseline.optimizer]
    return min(rates), max(rates)


def _name(line: Line) -> str:
    return f"{line.baseline.network} with {line.baseline.label}".replace("with none", "with nothing")


def _names(lines: Sequence[Line]) -> str:
    """Grouped by network."""
    grouped = groupby(lines, key=lambda line: line.baseline.network)
    texts = [f"{network} ({', '.join(line.baseline.label for line in group)})" for network, group in grouped]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
