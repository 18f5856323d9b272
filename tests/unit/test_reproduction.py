"""What `reproduction/` keeps: every table agrees with its record's runs, every line of `runs.csv` is one of them."""

import json
import runpy
import shutil
from pathlib import Path

import pandas as pd
import pytest

from spectralgru.files import write_json
from spectralgru.pipeline.provenance.explain import read_record
from spectralgru.pipeline.report.recorded import recorded_runs
from spectralgru.pipeline.results.names import KEPT, table_names
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.tables import make_table

FOLDER = Path(__file__).parents[2] / KEPT
RECORDS = sorted(path.parent for path in FOLDER.glob("*/provenance.json"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_tables_are_what_the_runs_say(record: Path):
    kept = recorded_runs(read_record(record))
    for corpus, name in table_names(list(kept)).items():
        table = make_table(kept[corpus], corpus, load_paper().table_for(corpus))
        expected = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        assert (record / f"{name}.csv").read_text() == expected


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_every_line_of_runs_is_a_run_of_the_record(record: Path):
    recorded = recorded_runs(read_record(record))
    runs = [run for by_setting in recorded.values() for mine in by_setting.values() for run in mine]
    lines = pd.read_csv(record / "runs.csv").to_dict("records")
    assert [line["key"] for line in lines] == [run.key for run in runs]
    for line, run in zip(lines, runs, strict=True):
        assert (line["method"], line["seed"], line["status"]) == (run.method, run.seed, run.status)
        assert line["git_commit"] == run.git_commit
        for split in ("valid", "test"):
            if split in run.best:
                assert line[split] == pytest.approx(run.best[split], rel=1e-12)


@pytest.mark.parametrize("record", sorted(p for p in FOLDER.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_every_record_says_what_it_is_and_is_listed(record: Path):
    assert (record / "README.md").read_text().startswith("# ")
    assert f"({record.name}/README.md)" in (FOLDER / "README.md").read_text()


def test_claims_name_runs_of_their_record():
    for file in FOLDER.glob("*/claims.json"):
        runs = read_record(file.parent)["runs"]
        for claim in json.loads(file.read_text()):
            assert set(claim["evidence"]["runs"]) <= set(runs), (file, claim["id"])


def test_settings_trained_later_join_a_record(tmp_path: Path):
    """A record taken apart and joined again is the record."""
    whole = FOLDER / "2026-11-23-nottingham-one-layer"
    record, results = tmp_path / "record", tmp_path / "results" / "paper"
    shutil.copytree(whole, record)
    provenance = read_record(whole)
    later = {path: run for path, run in provenance["runs"].items() if "/constraint-1.4/" in path}
    earlier = {path: run for path, run in provenance["runs"].items() if path not in later}
    runs, history = (
        pd.read_csv(whole / name, dtype=str, keep_default_na=False) for name in ("runs.csv", "history.csv")
    )
    (results / "tables").mkdir(parents=True)
    for folder, mine, there in ((record, earlier, record), (results, later, results / "tables")):
        write_json(folder / "provenance.json", provenance | {"runs": mine})
        keys = {run["key"] for run in mine.values()}
        runs[runs["key"].isin(keys)].to_csv(there / "runs.csv", index=False)
    history[history["setting"] != "constraint-1.4"].to_csv(record / "history.csv", index=False)
    for path in later:
        (results / path).mkdir(parents=True)
        seed = path.removeprefix("runs/nottingham/constraint-1.4/seed-")
        mine = history[(history["setting"] == "constraint-1.4") & (history["seed"] == seed)]
        mine.drop(columns=["corpus", "setting", "seed"]).to_csv(results / path / "history.csv", index=False)
    write_json(results / "claims.json", [])
    for name in ("table2.csv", "table2.md", "metrics.json"):
        (record / name).unlink()
    join = runpy.run_path(str(FOLDER.parent / "scripts/join.py"))["main"]
    join(record, results)
    for name in ("table2.csv", "table2.md", "metrics.json", "runs.csv"):
        assert (record / name).read_text() == (whole / name).read_text(), name
    assert list(read_record(record)["runs"]) == list(provenance["runs"])
    pd.testing.assert_frame_equal(pd.read_csv(record / "history.csv"), pd.read_csv(whole / "history.csv"))
    found, expected = (
        {claim["id"]: claim["verdict"] for claim in json.loads((folder / "claims.json").read_text())}
        for folder in (record, whole)
    )
    assert found == expected
    with pytest.raises(SystemExit, match="seed-0 already"):
        join(record, results)
