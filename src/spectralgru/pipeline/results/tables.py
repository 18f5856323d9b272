"""Tables 1 and 2: success rate and accuracy by setting, ours beside the paper's."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spectralgru.errors import InputError
from spectralgru.files import write_json
from spectralgru.pipeline.results.load import Campaign, RunFiles, flatten
from spectralgru.pipeline.results.names import counted, table_names
from spectralgru.pipeline.results.outcome import RULE, failures, succeeded
from spectralgru.pipeline.results.paper import Paper, PaperTable, load_paper
from spectralgru.pipeline.results.render import FORMS, Rendered, write_table
from spectralgru.records import Run
from spectralgru.setting import Setting

METRICS = {"perplexity": "perplexity", "nll": "NLL"}
COLUMNS = (
    "scale",
    "corpus",
    "setting",
    "quantity",
    "source",  # ours or paper
    "mean",  # over the successful runs
    "sd",  # sample standard deviation (n - 1); empty below two successful runs
    "n",  # runs, successful or not
    "success",  # share of runs that were neither lost nor broke
    "lost",  # runs, of ours
    "broken",
    "provenance",  # mark of a paper number: S, R, Q or U
)


def make_table(runs: Mapping[Setting, Sequence[Run]], corpus: str, paper: PaperTable | None) -> pd.DataFrame:
    """One row per setting, quantity and source (`COLUMNS`), with the values of the best validation epoch.

    A setting without a successful run has success 0 and no mean; a setting that the paper lacks has no paper row.
    """
    rows: list[dict[str, Any]] = []
    first = next(iter(runs.values()))[0]
    for setting, of_setting in ((setting.name, these) for setting, these in runs.items()):
        good = [run for run in of_setting if succeeded(run)]
        lost, broken = failures(of_setting)
        for split, word in (("valid", "validation"), ("test", "test")):
            quantity = f"{word} {METRICS[first.metric]}"
            values = [run.best[split] for run in good]
            rows.append(
                {
                    "scale": first.scale,
                    "corpus": corpus,
                    "setting": setting,
                    "quantity": quantity,
                    "source": "ours",
                    "mean": statistics.fmean(values) if values else None,
                    "sd": statistics.stdev(values) if len(values) > 1 else None,
                    "n": len(of_setting),
                    "success": len(good) / len(of_setting) if of_setting else None,
                    "lost": lost,
                    "broken": broken,
                    "provenance": "",
                }
            )
            if paper and setting in paper.success:
                mean, sd = (paper.valid if split == "valid" else paper.test).get(setting, (None, None))
                rows.append(
                    {
                        "scale": "paper",
                        "corpus": paper.corpus,
                        "setting": setting,
                        "quantity": quantity,
                        "source": "paper",
                        "mean": mean,
                        "sd": sd,
                        "n": paper.trials,
                        "success": paper.success[setting],
                        "provenance": paper.mark.name,
                    }
                )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    kinds = dict.fromkeys(("mean", "sd", "success"), "float64") | dict.fromkeys(
        ("n", "lost", "broken"), "Int64"
    )
    return table.astype(kinds)


def caption(name: str, runs: Sequence[Run], corpus: str, paper: Paper) -> str:
    """What a table shows: task, corpus and subset, network, epochs, seeds, scale, and whose numbers."""
    run = runs[0]
    kind = "Language modelling" if run.metric == "perplexity" else "Polyphonic music modelling"
    number = name.removesuffix(f"_{corpus}").removeprefix("table")
    unit = "perplexity" if run.metric == "perplexity" else "negative log-likelihood (NLL, nats per time step)"
    seeds = counted(len({r.seed for r in runs}), "seed")
    text = (
        f"Table {number}. {kind} on {corpus}, {run.scale} scale: {describe(run)}, "
        f"{seeds} a setting. Success rate, and {unit} of the model of the best validation epoch: mean ± "
        "standard deviation over the successful runs, lower is better, best in bold; n/a: no run succeeded. "
        f"{RULE}"
    )
    theirs = paper.table_for(corpus)
    if theirs is None:
        return f"{text} The paper has no numbers for this corpus."
    marks = dict.fromkeys((theirs.mark, *theirs.setup_marks))
    told = "; ".join(f"{mark.symbol} {mark.meaning}" for mark in marks)
    text += f" Paper: {paper.citation} ({theirs.setup}); {told}"
    text += "; ?: not recalled." if set(theirs.success) - _known(theirs) else "."
    if theirs.corpus != corpus:
        text += f" {corpus} stands in for the paper's {theirs.corpus}: another corpus, so only trends can be compared."
    elif run.scale != "paper":
        text += " Data and network here are smaller: the paper's numbers are for orientation only."
    return text


def describe(run: Run) -> str:
    """Data, network and length of a training, from the run's settings."""
    data, model, training = (run.settings[part] for part in ("data", "model", "training"))
    unit = "tokens" if run.metric == "perplexity" else "tunes"
    if any(data[split] for split in ("train", "valid", "test")):
        sizes = ", ".join(
            f"{word} {f'{data[split]:,}' if data[split] else 'all'}"
            for split, word in (("train", "train"), ("valid", "validation"), ("test", "test"))
        )
        subset = f"subset ({sizes} {unit})"
    else:
        subset = "full corpus"
    if data["vocabulary"]:
        subset += f", vocabulary of {data['vocabulary']:,}"
    network = f"{counted(model['num_layers'], 'GRU layer')} of {model['hidden_size']} units"
    at_most = "at most " if training["schedule"]["kind"] == "plateau" else ""
    return f"{subset}, {network}, {at_most}{training['epochs']} epochs"


def write_tables(campaign: Campaign) -> list[Path]:
    """Write `tables/<name>.{csv,md,html,tex}` for each corpus (names: `table_names`) and `metrics.json`.

    Nothing is written unless the runs of each table agree on data, network and epochs. Returns the paths. Raises
    InputError naming the run directory that is at fault.
    """
    paper, folder, written = load_paper(), campaign.root / "tables", []
    names = table_names(list(campaign.corpora), campaign.words)
    for corpus_runs in campaign.corpora.values():
        _check([item for items in corpus_runs.values() for item in items])
    metrics: dict[str, float] = {}
    for corpus, corpus_runs in campaign.corpora.items():
        runs = {setting: [item.run for item in items] for setting, items in corpus_runs.items()}
        table, name = make_table(runs, corpus, paper.table_for(corpus)), names[corpus]
        write_table(folder / name, table, layout(table, runs, name, corpus, paper))
        written += [folder / f"{name}.{suffix}" for suffix in FORMS]
        metrics |= _metrics(table)
    written.append(folder / "metrics.json")
    write_json(written[-1], metrics)
    return written


def layout(
    table: pd.DataFrame, runs: Mapping[Setting, Sequence[Run]], name: str, corpus: str, paper: Paper
) -> Rendered:
    """The table `name` of these runs, with its caption, ready to be written in any format."""
    every = [run for of_setting in runs.values() for run in of_setting]
    return Rendered.of(table, list(runs), caption(name, every, corpus, paper), paper)


def _known(table: PaperTable) -> set[str]:
    return {s for s, share in table.success.items() if share == 0 or (s in table.valid and s in table.test)}


def _check(every: Sequence[RunFiles]) -> None:
    """Raise InputError unless the runs of a table share data, network and training, as its caption says."""
    expected = _shared(every[0])
    for item in every:
        for key, value in _shared(item).items():
            if value != expected.get(key):
                raise InputError(
                    f"{item.directory}: trained with {key} = {value}, but {every[0].directory} with "
                    f"{expected.get(key)}; delete the run that does not belong and train it again"
                )
        if item.run.status == "finished" and not {"valid", "test"} <= item.run.best.keys():
            raise InputError(
                f"{item.directory}: finished without a best validation and test value; train it again"
            )


def _shared(item: RunFiles) -> dict[str, Any]:
    try:
        describe(item.run)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{item.directory}: run.json lacks the setting {error}; train the run again"
        ) from None
    return flatten({part: item.run.settings[part] for part in ("data", "model", "training")})


def _metrics(table: pd.DataFrame) -> dict[str, float]:
    """Flat names for `dvc metrics`: `ptb/constraint-0.2/test`, its `_sd`, and `/success`."""
    values: dict[str, float] = {}
    for row in table[table["source"] == "ours"].to_dict("records"):
        prefix = f"{row['corpus']}/{row['setting']}"
        split = "valid" if row["quantity"].startswith("validation") else "test"
        metrics = {
            f"{prefix}/success": row["success"],
            f"{prefix}/{split}": row["mean"],
            f"{prefix}/{split}_sd": row["sd"],
        }
        values |= {key: round(float(value), 6) for key, value in metrics.items() if pd.notna(value)}
    return values
