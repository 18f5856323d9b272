import json
import shutil
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from results_records import SETTINGS, make_campaign, make_run
from spectralgru.errors import InputError
from spectralgru.pipeline.results.claims.check import write_claims
from spectralgru.pipeline.results.figures import write_figures
from spectralgru.pipeline.results.load import Campaign
from spectralgru.pipeline.results.outcome import outcome
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.runs import write_runs
from spectralgru.pipeline.results.tables import COLUMNS, make_table, table_names, write_tables
from spectralgru.records import read_run, write_record
from spectralgru.setting import Setting

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "quick"
    make_campaign(root, SETTINGS, SEEDS)
    return root


def values(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_paper_numbers_are_those_of_the_published_tables():
    paper = load_paper()
    ptb, music = paper.tables["ptb"], paper.tables["nottingham"]
    assert ptb.valid["constraint-0.2"] == (102.0, 0.3)
    assert ptb.test["clipping-10"] == (100.4, 0.5)
    assert ptb.success["clipping-15"] == 0
    assert "clipping-15" not in ptb.valid
    assert music.valid["clipping-45"] == (5.26, 3)
    assert "clipping-45" not in music.test
    assert all(share == 1 for share in music.success.values())
    assert {table.mark.name for table in (ptb, music)} == {"U"}
    assert [mark.name for mark in ptb.setup_marks] == [mark.name for mark in music.setup_marks] == ["Q", "U"]
    assert ptb.setup.endswith("75 epochs§; 10 trials†")
    assert paper.cost.seconds["truncated SVD"] == 4.55e4
    assert paper.table_for("chorales") is music
    assert paper.table_for("musedata") is None


def test_broken_paper_file_names_itself(tmp_path: Path):
    broken = tmp_path / "paper.yaml"
    broken.write_text("marks: [")
    with pytest.raises(InputError, match=r"paper\.yaml"):
        load_paper(broken)
    with pytest.raises(InputError, match=r"absent\.yaml"):
        load_paper(tmp_path / "absent.yaml")


def test_mean_and_deviation_are_over_the_successful_runs_only(tmp_path: Path):
    tests = [97.0, 99.0, 104.0]
    runs = [make_run(tmp_path, "ptb", "clipping", 10.0, k, best=(t + 5, t)) for k, t in enumerate(tests)]
    runs.append(make_run(tmp_path, "ptb", "clipping", 10.0, 3, diverged_in=4, best=(1.0, 1.0)))
    table = make_table(
        {Setting("clipping", 10.0): [read_run(r) for r in runs]}, "ptb", load_paper().tables["ptb"]
    )
    row = table[(table["source"] == "ours") & (table["quantity"] == "test perplexity")].iloc[0]
    assert row["mean"] == pytest.approx(100.0)
    assert row["sd"] == pytest.approx(statistics.stdev(tests))  # n - 1
    assert (row["n"], row["success"]) == (4, 0.75)
    paper = table[(table["source"] == "paper") & (table["quantity"] == "test perplexity")].iloc[0]
    assert (paper["mean"], paper["sd"], paper["n"], paper["success"]) == (100.4, 0.5, 10, 0.4)
    assert (paper["provenance"], paper["scale"]) == ("U", "paper")


def test_a_run_that_ends_far_above_its_best_has_broken(tmp_path: Path):
    runs = [read_run(make_run(tmp_path, "ptb", "clipping", 10.0, k, best=(100.0, 99.0))) for k in range(3)]
    runs[1] = replace(runs[1], final=runs[1].best | {"valid": 151.0})
    runs[2] = replace(runs[2], final={})  # a record of old: not known
    lost = read_run(make_run(tmp_path, "ptb", "clipping", 10.0, 3, diverged_in=4))
    assert [outcome(run) for run in (*runs, lost)] == ["succeeded", "broken", "succeeded", "lost"]
    row = make_table({Setting("clipping", 10.0): [*runs, lost]}, "ptb", None).iloc[0]
    assert (row["success"], row["lost"], row["broken"], row["n"]) == (0.5, 1, 1, 4)
    assert row["mean"] == 100.0


def test_one_successful_run_has_no_deviation_and_none_has_no_mean(tmp_path: Path):
    kept = make_run(tmp_path, "ptb", "clipping", 20.0, 0)
    lost = make_run(tmp_path, "ptb", "none", None, 0, diverged_in=1)
    runs = {Setting("clipping", 20.0): [read_run(kept)], Setting("none"): [read_run(lost)]}
    table = make_table(runs, "ptb", None)
    assert table["mean"].notna().tolist() == [True, True, False, False]
    assert table["sd"].isna().all()
    assert table["success"].tolist() == [1, 1, 0, 0]


def test_every_run_has_a_line_with_what_its_record_says(tmp_path: Path):
    make_run(tmp_path, "ptb", "constraint", 0.2, 0, best=(100.0, 95.5))
    lost = read_run(make_run(tmp_path, "ptb", "constraint", 0.2, 1, diverged_in=3))
    (path,) = write_runs(Campaign.load(tmp_path, {"ptb": [Setting("constraint", 0.2)]}, (0, 1), "quick"))
    table = pd.read_csv(path, dtype={"key": str})
    assert table["seed"].tolist() == [0, 1]
    assert table["status"].tolist() == ["finished", "diverged"]
    assert table.loc[0, ["valid", "test"]].tolist() == [100.0, 95.5]
    assert table.loc[1, "reason"] == lost.diverged["reason"]
    assert (table["sigma_max"] <= 1.8).all()
    assert table.loc[1, "grad_norm_max"] == float("inf")
    assert table["key"].tolist() == [read_run(p).key for p in sorted(tmp_path.glob("runs/*/*/seed-*"))]


def test_written_tables_show_settings_in_order_marks_and_gaps(root: Path):
    paths = write_tables(Campaign.load(root, SETTINGS, SEEDS, "quick"))
    names = [p.relative_to(root).as_posix() for p in paths]
    kinds = ("csv", "md", "html", "tex")
    assert names == [*(f"tables/table{n}.{k}" for n in (1, 2) for k in kinds), "tables/metrics.json"]
    lines = (root / "tables" / "table1.md").read_text().splitlines()
    for said in (
        "Table 1",
        "ptb",
        "quick scale",
        "200,000",
        "5,000",
        "1 GRU layer of 12",
        "6 epochs",
        "3 seeds",
    ):
        assert said in lines[0]
    assert "orientation only" in lines[0]
    assert "not checked against the PDF" in lines[0]
    assert values(lines[2]) == ["", "", "δ = 0.2", "δ = 0.5", "clip 5", "clip 20", "none"]
    assert values(lines[4]) == ["success rate", "ours", "100 %", "100 %", "100 %", "33 %", "0 %"]
    assert values(lines[5]) == ["", "paper†", "100 %", "100 %", "100 %", "0 %", ""]
    assert values(lines[6]) == ["lost runs", "ours", "0 of 3", "0 of 3", "0 of 3", "2 of 3", "3 of 3"]
    assert values(lines[7]) == ["broken runs", "ours", *["0 of 3"] * 5]
    ours, paper = values(lines[8]), values(lines[9])
    assert ours[-1] == "n/a"  # every run diverged
    assert sum(cell.startswith("**") for cell in ours) == 1
    assert paper[2:] == ["**102.0 ± 0.3**", "102.8 ± 0.3", "109.3 ± 0.4", "n/a", ""]
    music = (root / "tables" / "table2.md").read_text()
    assert "chorales stands in for the paper's nottingham" in music
    assert "paper (nottingham)†" in music
    assert "?" in values(music.splitlines()[9])  # clip 60: not recalled


def test_best_value_is_the_lowest_mean(root: Path):
    write_tables(Campaign.load(root, SETTINGS, SEEDS, "quick"))
    table = pd.read_csv(root / "tables" / "table1.csv")
    assert tuple(table.columns) == COLUMNS
    ours = table[(table["source"] == "ours") & (table["quantity"] == "validation perplexity")]
    best = list(ours["setting"]).index(ours.loc[ours["mean"].idxmin(), "setting"])
    row = values((root / "tables" / "table1.md").read_text().splitlines()[8])[2:]
    assert [cell.startswith("**") for cell in row].index(True) == best


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def test_html_latex_and_markdown_say_the_same(root: Path):
    write_tables(Campaign.load(root, SETTINGS, SEEDS, "quick"))
    for name in ("table1", "table2"):
        tables = root / "tables"
        markdown = [values(row) for row in (tables / f"{name}.md").read_text().splitlines()[4:]]
        plain = [[cell.strip("*") for cell in row] for row in markdown]
        parser = _Cells()
        parser.feed((tables / f"{name}.html").read_text())
        assert parser.rows[2:] == plain
        body = (tables / f"{name}.tex").read_text().split(r"\midrule")[1].split(r"\bottomrule")[0]
        latex = [line.removesuffix(r" \\").split(" & ") for line in body.splitlines() if "&" in line]
        assert [len(row) for row in latex] == [len(row) for row in plain]
        assert [[r"\textbf" in cell for cell in row] for row in latex] == [
            [cell.startswith("**") for cell in row] for row in markdown
        ]
        text = (tables / f"{name}.tex").read_text()
        assert text.isascii()  # no symbol that pdflatex does not know
        assert text.count("{") == text.count("}")


def test_metrics_are_flat_finite_and_those_of_the_table(root: Path):
    write_tables(Campaign.load(root, SETTINGS, SEEDS, "quick"))
    metrics = json.loads((root / "tables" / "metrics.json").read_text())
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["ptb/clipping-20/success"] == pytest.approx(1 / 3, abs=1e-6)
    assert "ptb/none/test" not in metrics
    table = pd.read_csv(root / "tables" / "table2.csv")
    mean = table.query("setting == 'constraint-1.4' and quantity == 'test NLL' and source == 'ours'")["mean"]
    assert metrics["chorales/constraint-1.4/test"] == pytest.approx(mean.iloc[0], rel=1e-5)


def test_same_records_same_bytes(root: Path):
    first = {p: p.read_bytes() for p in write_tables(Campaign.load(root, SETTINGS, SEEDS, "quick"))}
    assert {p: p.read_bytes() for p in write_tables(Campaign.load(root, SETTINGS, SEEDS, "quick"))} == first


@pytest.mark.parametrize(
    ("write", "last", "others"),
    [
        (write_tables, "tables/table1.tex", ["tables/table1.csv", "tables/table1.md", "tables/table1.html"]),
        (write_claims, "claims.html", ["claims.json", "claims.md"]),
        (write_figures, "figures/ptb-trajectory.pdf", ["figures/ptb-trajectory.svg"]),
    ],
)
def test_forms_of_one_result_are_all_new_or_all_old(results, tmp_path, write, last, others):
    root = tmp_path / "quick"
    shutil.copytree(results, root)
    (root / last).unlink()
    (root / last).mkdir()  # cannot be written
    for name in others:
        (root / name).write_text("old")
    with pytest.raises(IsADirectoryError, match=Path(last).name):
        write(Campaign.load(root, SETTINGS, (0, 1, 2), "quick"))
    assert [(root / name).read_text() for name in others] == ["old"] * len(others)


def test_a_missing_run_is_named_with_the_command_that_makes_it(tmp_path: Path):
    make_run(tmp_path, "ptb", "constraint", 0.2, 0)
    with pytest.raises(InputError) as caught:
        write_tables(
            Campaign.load(
                tmp_path, {"ptb": [Setting("constraint", 0.2), Setting("clipping", 5.0)]}, (0, 1), "quick"
            )
        )
    assert str(tmp_path / "runs/ptb/constraint-0.2/seed-1") in str(caught.value)
    assert "--method constraint --value 0.2 --seeds 1" in str(caught.value)
    assert not (tmp_path / "tables").exists()


def test_runs_of_one_table_must_share_their_settings(tmp_path: Path):
    make_run(tmp_path, "ptb", "constraint", 0.2, 0)
    other = make_run(tmp_path, "ptb", "constraint", 0.2, 1, epochs=7)
    with pytest.raises(InputError, match=r"training\.epochs = 7") as caught:
        write_tables(Campaign.load(tmp_path, {"ptb": [Setting("constraint", 0.2)]}, (0, 1), "quick"))
    assert str(other) in str(caught.value)


def test_a_broken_record_is_named(tmp_path: Path):
    directory = make_run(tmp_path, "ptb", "constraint", 0.2, 0)
    whole = read_run(directory)
    for change in ({"settings": {}}, {"best": {}}):
        write_record(directory, replace(whole, **change))
        with pytest.raises(InputError, match="seed-0"):
            write_tables(Campaign.load(tmp_path, {"ptb": [Setting("constraint", 0.2)]}, (0,), "quick"))


def test_table_names_follow_the_paper():
    assert table_names(["chorales", "ptb"]) == {"ptb": "table1", "chorales": "table2"}
    assert table_names(["chorales", "nottingham", "musedata"]) == {
        "nottingham": "table2",
        "chorales": "table2_chorales",
        "musedata": "table2_musedata",
    }
