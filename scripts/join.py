"""Add the finished runs of results/<scale> to a record: python scripts/join.py RECORD results/paper

Table and learning curves are made of all runs, by the workflow's own code, and claims about runs are checked on all of
them. Claims about what happens within runs need traces that a record does not keep: they stand once for each part.
"""

import csv
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib import style

from spectralgru.files import sha256, write_json, write_text
from spectralgru.pipeline.provenance.explain import read_record
from spectralgru.pipeline.provenance.record import results_sha256
from spectralgru.pipeline.report.recorded import recorded_runs
from spectralgru.pipeline.results.claims.check import OF_RUNS, check_claims
from spectralgru.pipeline.results.claims.levels import correct
from spectralgru.pipeline.results.claims.render import to_markdown
from spectralgru.pipeline.results.figures import learning_curves
from spectralgru.pipeline.results.load import Campaign
from spectralgru.pipeline.results.names import table_names
from spectralgru.pipeline.results.style import RC, save
from spectralgru.pipeline.results.tables import write_tables
from spectralgru.records import run_path, write_record
from spectralgru.setting import Setting

METHODS = ["constraint", "clipping", "none"]


def place(path: str) -> tuple[int, float, str]:
    """Where a run stands in tables: `runs/<corpus>/<setting>/seed-<k>`."""
    _, _, setting, seed = path.split("/")
    method, value = Setting.parse(setting)
    return METHODS.index(method), value or 0, seed


def joined(old: Path, new: Path) -> dict:
    """Provenance of the runs of both."""
    record, added = read_record(old), read_record(new)
    if record["data"] != added["data"]:
        sys.exit(f"{new}: trained on other data than {old}")
    if twice := record["runs"].keys() & added["runs"].keys():
        sys.exit(f"{old}: has {min(twice)} already")
    runs = record["runs"] | added["runs"]
    return record | {"runs": {path: runs[path] for path in sorted(runs, key=place)}}


def histories(old: Path, new: Path, runs: dict) -> pd.DataFrame:
    """One line an epoch of every run of both, as `history.py` writes them; of runs in neither, what the record has."""
    kept = pd.read_csv(old / "history.csv")
    which = ["corpus", "setting", "seed"]
    tables = {"runs/{}/{}/seed-{}".format(*run): rows for run, rows in kept.groupby(which, sort=False)}
    for path in runs:
        if (new / path / "history.csv").exists():
            _, corpus, setting, seed = path.split("/")
            run = zip(which, (corpus, setting, int(seed.removeprefix("seed-"))), strict=True)
            tables[path] = pd.read_csv(new / path / "history.csv").assign(**dict(run))[kept.columns]
    return pd.concat([tables[path] for path in sorted(tables)])


def main(old: Path, new: Path) -> None:
    """Read both, then write the record."""
    record = joined(old, new)
    history = histories(old, new, record["runs"])
    (corpus,) = record["data"]
    by_setting = recorded_runs(record)[corpus]
    settings, runs = list(by_setting), [run for mine in by_setting.values() for run in mine]
    seeds = sorted({run.seed for run in runs})
    name, scale = table_names([corpus])[corpus], record["scale"]
    lines = [
        row for part in (old / "runs.csv", new / "tables/runs.csv") for row in csv.DictReader(part.open())
    ]
    order = [(run.method, "" if run.value is None else str(run.value), str(run.seed)) for run in runs]
    lines.sort(key=lambda row: order.index((row["method"], row["value"], row["seed"])))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for run in runs:
            directory = run_path(root, corpus, run.method, run.value, run.seed)
            write_record(directory, replace(run, files={}))  # its history is written anew
            mine = (history["setting"] == run.setting) & (history["seed"] == run.seed)
            write_text(
                directory / "history.csv",
                history[mine].drop(columns=["corpus", "setting"]).to_csv(index=False),
            )
        campaign = Campaign.load(root, {corpus: settings}, seeds, scale)
        write_tables(campaign)
        for file in (f"{name}.csv", f"{name}.md", "metrics.json"):
            write_text(old / file, (root / "tables" / file).read_text(encoding="utf-8"))
        with style.context(["default", RC]):
            figure = learning_curves(campaign.corpora[corpus])
            figure.suptitle(f"{corpus}, {scale} scale", fontsize=9, color="0.35")
            save(figure, root / "curves")
        write_text(old / f"{corpus}-learning_curves.svg", (root / "curves.svg").read_text(encoding="utf-8"))
    claims = [claim.record() for claim in check_claims(campaign.corpora[corpus], corpus, OF_RUNS)]
    known = {claim["id"] for claim in claims}
    for part in (old, new):
        claims += [
            c for c in json.loads((part / "claims.json").read_text(encoding="utf-8")) if c["id"] not in known
        ]
    claims = correct(claims)
    write_json(old / "claims.json", claims)
    write_text(old / "claims.md", to_markdown(claims, scale))
    write_text(old / "runs.csv", pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))
    write_text(old / "history.csv", history.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    made = {f"tables/{n}": old / n for n in (f"{name}.csv", f"{name}.md", "metrics.json", "runs.csv")}
    made |= {n: old / n for n in ("claims.json", "claims.md")}
    made |= {f"figures/{corpus}-learning_curves.svg": old / f"{corpus}-learning_curves.svg"}
    record["artifacts"] = {n: {"sha256": sha256(path), "corpora": [corpus]} for n, path in made.items()}
    write_json(old / "provenance.json", record | {"results_sha256": results_sha256()})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
