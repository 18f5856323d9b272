import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from snakemake.cli import main as run_snakemake

from results_records import make_experiment, make_run, reseal
from spectralgru.errors import InputError, RunError
from spectralgru.files import sha256, write_json, write_text
from spectralgru.pipeline.article import write_article
from spectralgru.pipeline.corpora.recipe import RECIPE
from spectralgru.pipeline.dates import date_by_contents, run_keys
from spectralgru.pipeline.dating import OUTDATED, date_of
from spectralgru.pipeline.params import parse_params
from spectralgru.pipeline.provenance.explain import explain, find, read_record
from spectralgru.pipeline.provenance.record import WRITTEN, artifacts, write_provenance
from spectralgru.pipeline.report import write_report
from spectralgru.pipeline.results.claims.check import write_claims
from spectralgru.pipeline.results.curves import write_curves
from spectralgru.pipeline.results.figures import write_figures
from spectralgru.pipeline.results.load import Campaign
from spectralgru.pipeline.results.names import ARTICLE, REPORT
from spectralgru.pipeline.results.runs import write_runs
from spectralgru.pipeline.results.tables import write_tables
from spectralgru.pipeline.sampling.dates import made_of
from spectralgru.pipeline.summary import write_summary
from spectralgru.records import read_run, summed_up

REPOSITORY = Path(__file__).parents[2]
CORPORA = ("ptb", "chorales")
PAGES = {REPORT, *ARTICLE}
RUN = "runs/ptb/constraint-0.2/seed-0"


def parameters(**methods):
    values = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    values["quick"] |= {"run": list(CORPORA), "seeds": [0, 1]}
    for corpus in CORPORA:
        chosen = {"constraint": [0.2, 0.5], "clipping": [15], "none": False} | methods
        values["quick"]["settings"][corpus] |= {"methods": chosen, "readings": {}}
    return parse_params(values)


class Made:
    """Finished runs, tables, figures and their provenance in a folder."""

    def __init__(self, folder, params, rules=None):
        self.folder, self.params = folder, params
        self.root, self.data, self.logs = folder / "results" / "quick", folder / "data", folder / "logs"
        self.settings = {corpus: params.settings(corpus) for corpus in CORPORA}
        self.seeds = params.section.seeds
        self.rules = {} if rules is None else rules  # outputs with their inputs, paths relative to `folder`

    def fill(self):
        keys = {}
        for corpus in CORPORA:
            raw = {"raw.txt": {"sha256": "cd" * 32, "source": "mirror"}}
            record = {"sha256": "ab" * 32, "recipe": RECIPE, "raw": raw, "licence": "free", "counts": {}}
            write_json(self.data / "prepared" / f"{corpus}.json", record)
            (self.data / "prepared" / f"{corpus}.npz").write_bytes(b"arrays")
            keys |= run_keys(self.params, corpus, "ab" * 32)
            for setting in self.settings[corpus]:
                for seed in self.seeds:
                    self.train(corpus, setting, seed, keys)
                self.sum_up(corpus, setting)
            tracked = {path: key for path, key in keys.items() if f"/{corpus}/" in path}
            write_json(self.root / "tracking" / f"{corpus}.json", {"runs": tracked})
        said = {"title": "Continuations", "answer": [], "tables": [], "figures": []}
        write_text(self.root / "samples/ptb.txt", "text")
        write_summary(self.root / "samples", said, ["ptb.txt"], made_of(keys))
        self.plan()
        self.make()
        return self

    def train(self, corpus, setting, seed, keys):
        run = make_run(
            self.root, corpus, *setting, seed, diverged_in=2 if setting[0] == "clipping" and seed else None
        )
        reseal(run, key=keys[run.relative_to(self.root).as_posix()])

    def sum_up(self, corpus, setting):
        folder = self.root / "runs" / corpus / setting.name
        write_json(folder / "setting.json", summed_up([read_run(p) for p in sorted(folder.glob("seed-*"))]))

    def make(self):
        for write in (write_tables, write_runs, write_curves, write_figures, write_claims):
            write(Campaign.load(self.root, self.settings, self.seeds, "quick"))
        write_provenance(self.root, self.settings, self.seeds, self.data, REPOSITORY / "params.yaml")
        self.write_pages()

    def write_pages(self):
        write_report(self.root)
        write_article(self.root)

    def shuffle(self, seed=0):
        """Dates as a clone and `dvc pull` leave them: in any order."""
        files = sorted(
            p for part in (self.root, self.data, self.logs) for p in part.rglob("*") if p.is_file()
        )
        generator = random.Random(seed)
        generator.shuffle(files)
        begin = generator.choice([1_600_000_000 * 10**9, time.time_ns()])  # before the code, or after it
        for i, path in enumerate(files):
            os.utime(path, ns=(begin + i, begin + i))

    def outdated(self, params=None):
        """What Snakemake would make again: outputs older than an input, or with an input to be made again."""
        date_by_contents(params or self.params, self.data, self.root, self.logs)
        found = set()
        for name, inputs in self.rules.items():
            not_before = max(date_of(self.folder / path) for path in inputs)
            if date_of(self.folder / name) < not_before or not found.isdisjoint(inputs):
                found.add(name)
        short = (name.removeprefix("results/quick/").removeprefix("runs/") for name in found)
        return {name.removesuffix("/setting.json") for name in short}

    def plan(self):
        """Learn from the workflow what is made from what, in order; benchmarks are outputs, too."""
        write_text(self.folder / "params.yaml", yaml.safe_dump(self.params.model_dump(mode="json")))
        snakefile = str(REPOSITORY / "Snakefile")
        said = StringIO()
        with chdir(self.folder), redirect_stdout(said), pytest.raises(SystemExit) as end:
            run_snakemake(["--snakefile", snakefile, "--dry-run", "--forceall"])
        assert end.value.code in (0, None)
        planned = said.getvalue()
        for job in re.split(r"^(?:local)?rule .*\n", planned, flags=re.MULTILINE)[1:]:
            said = dict(re.findall(r"^    (input|output|benchmark): (.*)$", job, flags=re.MULTILINE))
            outputs = [
                path for key in ("output", "benchmark") if key in said for path in said[key].split(", ")
            ]
            self.rules |= dict.fromkeys(outputs, said["input"].split(", "))
        for path in self.rules:
            if path.endswith(".tsv"):
                write_text(self.folder / path, "s\n1\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("campaign"), parameters()).fill()


@pytest.fixture
def campaign(finished, tmp_path):
    """A copy of its own."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    return Made(tmp_path, finished.params, finished.rules)


def told(campaign, name):
    record = read_record(campaign.root)
    return list(explain(campaign.root, record, find(record, name), campaign.settings, campaign.seeds))


def test_every_cell_of_a_table_leads_to_its_runs(finished):
    lines = told(finished, "table1")
    text = "\n".join(lines)
    for fact in ("0123456789abcdef", "ab" * 32, "raw.txt", "machine", "torch 2.13.0", "model.hidden_size=12"):
        assert fact in text
    for setting in ("constraint-0.2", "constraint-0.5", "clipping-15"):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {setting}:"))
        for seed, line in zip((0, 1), lines[at + 1 : at + 3], strict=True):
            assert str(finished.root / f"runs/ptb/{setting}/seed-{seed}") in line
    assert "success 1 of 2" in text
    assert "chorales" not in text


def test_a_figure_leads_to_the_runs_it_shows(finished):
    lines = [line for line in told(finished, "chorales-trajectory") if "/runs/" in line]
    assert [line.split("/runs/")[1].split()[0] for line in lines] == [
        "chorales/constraint-0.2/seed-0",
        "chorales/clipping-15/seed-0",
    ]
    curves = [
        line for line in told(finished, "results/quick/figures/ptb-learning_curves.svg") if "/runs/" in line
    ]
    assert len(curves) == 6


def test_every_verdict_leads_to_its_runs(finished):
    lines = told(finished, "claims")
    at = next(i for i, line in enumerate(lines) if line.startswith("  constraint-beats-clipping: "))
    assert any("runs/ptb/clipping-15/seed-0" in line for line in lines)
    assert any("runs/chorales/constraint-0.2/seed-0" in line for line in lines[at:])


def test_an_unknown_table_is_named_with_the_known_ones(finished):
    with pytest.raises(InputError, match=r"table9.*table1.*ptb-trajectory"):
        find(read_record(finished.root), "table9")


def test_a_table_edited_by_hand_has_no_provenance(campaign):
    path = campaign.root / "tables" / "table1.csv"
    path.write_text(path.read_text().replace("ptb", "PTB"))
    with pytest.raises(RunError, match=r"table1\.csv.*snakemake"):
        told(campaign, "table1")


def test_a_cell_that_its_runs_do_not_bear_out_is_an_error(campaign):
    path = campaign.root / "provenance.json"
    record = json.loads(path.read_text())
    record["runs"][RUN]["best"]["valid"] += 1
    write_json(path, record)
    with pytest.raises(RunError, match=r"constraint-0\.2"):
        told(campaign, "table1")


@pytest.mark.parametrize(
    "lost",
    [
        ("data", "ptb", "counts"),
        ("data", "ptb", "licence"),
        (RUN, "metric"),
        (RUN, "best", "test"),
        (RUN, "settings", "data", "test"),
        (RUN, "settings", "model", "dropout"),
        (RUN, "settings", "training", "schedule", "kind"),
    ],
    ids=lambda lost: ".".join(lost),
)
def test_a_record_without_what_the_pages_show_is_refused(campaign, lost):
    path = campaign.root / "provenance.json"
    record = json.loads(path.read_text())
    *places, name = ("runs", *lost) if lost[0] == RUN else lost
    place = record
    for step in places:
        place = place[step]
    del place[name]
    write_json(path, record)
    with pytest.raises(InputError, match=r"provenance\.json: missing, or not a provenance record; make it"):
        read_record(campaign.root)


def test_the_record_holds_the_hash_of_every_file(finished):
    record = read_record(finished.root)
    for path, about in record["artifacts"].items():
        assert sha256(finished.root / path) == about["sha256"]
    for path, run in record["runs"].items():
        assert run["files"].keys() == {"run.json", "history.csv", "steps.csv", "model.safetensors"}
        assert sha256(finished.root / path / "history.csv") == run["files"]["history.csv"]


def test_the_crate_is_whole(finished):
    graph = json.loads((finished.root / "ro-crate-metadata.json").read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    assert len(entities) == len(graph)

    def references(value):
        if isinstance(value, dict):
            yield from [value["@id"]] if value.keys() == {"@id"} else ()
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    outside = {ref for ref in references(graph) if ref not in entities}
    snakemake = {"https://doi.org/10.1093/bioinformatics/bts480", "https://snakemake.readthedocs.io"}
    assert outside == {"https://w3id.org/ro/crate/1.1", *snakemake}
    root = entities["./"]
    assert entities[root["mainEntity"]["@id"]]["@type"] == [
        "File",
        "SoftwareSourceCode",
        "ComputationalWorkflow",
    ]
    for part in root["hasPart"]:
        assert (finished.root / part["@id"]).exists(), part
    run = entities["#workflow-run"]
    assert run["instrument"] == root["mainEntity"]
    assert {"@id": "tables/table1.csv"} in run["result"]
    assert len([e for e in graph if e["@type"] == "CreateAction"]) == 1 + 2 * 3 * 2


# Beside rich 14 it cannot be installed. The contexts of the crate are fetched from the web, so they are put into it:
# those of the package rocrate, whose later version names a workflow's type otherwise.
VALIDATION = """
import json, sys
from pathlib import Path
from rocrate.vocabs import RO_CRATE
from rocrate_validator import services

file = Path(sys.argv[1], "ro-crate-metadata.json")
crate = json.loads(file.read_text())
terms = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
terms["ComputationalWorkflow"] = "https://bioschemas.org/ComputationalWorkflow"
crate["@context"] = [RO_CRATE["@context"], terms]
file.write_text(json.dumps(crate))
settings = services.ValidationSettings(
    rocrate_uri=sys.argv[1], profile_identifier="workflow-run-crate-0.5", offline=True, cache_path=sys.argv[2]
)
result = services.validate(settings)
print(*(f"{issue.check.identifier} {issue.message}" for issue in result.get_issues()), sep="\\n")
sys.exit(not result.passed())
"""


def test_the_crate_passes_the_validator_of_its_profile(campaign, tmp_path):
    command = [Path(sys.executable).with_name("uv"), "run", "--no-project", "--isolated", "--quiet"]
    command += ["--python", sys.executable, "--with", "roc-validator==0.13.0", "--with", "rocrate==0.16.0"]
    command += ["python", "-c", VALIDATION, campaign.root, tmp_path / "cache"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_every_run_and_file(finished):
    page = (finished.root / "provenance.html").read_text()
    record = read_record(finished.root)
    assert all(name in page for name in [*record["runs"], *record["artifacts"]])


def test_results_of_todays_parameters_are_fresh_whatever_their_dates(campaign):
    for seed in range(10):
        campaign.shuffle(seed)
        assert campaign.outdated() == set(), seed
    of_each_rule = {(Path(path).parent, *inputs): path for path, inputs in campaign.rules.items()}
    for path in of_each_rule.values():
        campaign.shuffle()
        os.utime(campaign.folder / path, ns=(time.time_ns(), time.time_ns()))
        assert campaign.outdated() == set(), path


def test_results_of_other_parameters_are_outdated_until_they_are_asked_for_again(campaign):
    campaign.shuffle()
    changed = parameters(constraint=[0.2, 0.8])
    found = campaign.outdated(changed)
    assert {*artifacts(CORPORA), *WRITTEN, *PAGES} <= found
    assert not [name for name in found if name.endswith("constraint-0.2")]
    assert campaign.outdated() == set()


def test_runs_of_other_settings_are_outdated(campaign):
    values = campaign.params.model_dump(mode="json")
    values["quick"]["settings"]["ptb"]["training"]["epochs"] += 1
    found = campaign.outdated(parse_params(values))
    assert {"ptb/constraint-0.2", "ptb/constraint-0.5", "ptb/clipping-15"} <= found
    assert not [name for name in found if name.startswith("chorales/")]
    assert not [name for name in found if name.startswith("figures/chorales-")]


def test_a_run_that_was_deleted_is_missed(campaign):
    (campaign.root / "runs/ptb/constraint-0.2/seed-1/run.json").unlink()
    assert "ptb/constraint-0.2" in campaign.outdated()


def test_a_file_touched_by_hand_is_made_again(campaign):
    path = campaign.root / "figures" / "ptb-trajectory.svg"
    path.write_text(path.read_text() + " ")
    assert "figures/ptb-trajectory.svg" in campaign.outdated()


def test_the_report_follows_the_experiments_that_are_there(campaign):
    make_experiment(campaign.root / "experiments" / "learning_rate")
    campaign.shuffle()
    assert campaign.outdated() == PAGES
    campaign.write_pages()
    campaign.shuffle()
    assert campaign.outdated() == set()


def test_the_report_follows_the_campaigns_that_are_kept(campaign):
    record = campaign.folder / "reproduction" / "2026-01-02-long"
    record.mkdir(parents=True)
    for name in (WRITTEN[0], "figures/ptb-learning_curves.svg", "figures/chorales-learning_curves.svg"):
        shutil.copy(campaign.root / name, record)
    (record / "answer.json").write_text('{"title": "A long training", "answer": []}')
    campaign.shuffle()
    assert campaign.outdated() == PAGES
    campaign.write_pages()
    campaign.shuffle()
    assert campaign.outdated() == set()


def test_samples_follow_the_runs_and_the_report_follows_them(campaign):
    def dates():
        campaign.shuffle()
        campaign.outdated()
        settings = campaign.root.glob("runs/*/*/setting.json")
        return [max(map(date_of, settings)), date_of(summary), date_of(campaign.root / REPORT)]

    def in_order():
        found = dates()
        return found == sorted(found)

    summary = campaign.root / "samples" / "summary.json"
    assert in_order()
    (summary.parent / "ptb.txt").write_text("changed")
    assert dates()[1] == OUTDATED
    (summary.parent / "ptb.txt").write_text("text")
    assert in_order()
    record = json.loads(summary.read_text())
    write_json(summary, record | {"made_of": record["made_of"] | {"code": "older"}})
    assert dates()[1] == OUTDATED


def test_runs_that_mlflow_has_not_seen_are_tracked_again(campaign):
    path = campaign.root / "tracking" / "ptb.json"
    write_json(path, {"runs": {}})
    assert campaign.outdated() == {"tracking/ptb.json"}


def side_files(campaign):
    """Everything small that planning reads."""
    root = campaign.root
    return {
        "corpus": campaign.data / "prepared/ptb.json",
        "setting": root / "runs/ptb/constraint-0.2/setting.json",
        "tracking": root / "tracking/ptb.json",
        "samples": root / "samples/summary.json",
        "report": root / REPORT,
        "article": root / ARTICLE[1],
    } | {name: root / name for name in WRITTEN}


DAMAGE = {
    "halved": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "a list": lambda content: b"[]",
    "another object": lambda content: b'{"files": 1}',
    "other types": lambda content: b'{"sha256": 1, "runs": [1], "files": [], "made_of": null}',
    "nothing in it": lambda content: b'{"sha256": null, "runs": [], "files": {}, "made_of": {}}',
    "too deep": lambda content: b'{"runs": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_side_file_is_outdated_and_stops_nothing(campaign, damage):
    assert campaign.outdated() == set()
    for name, path in side_files(campaign).items():
        content = path.read_bytes()
        path.write_bytes(damage(content))
        campaign.outdated()
        assert date_of(path) == OUTDATED, name
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["samples", REPORT, *ARTICLE, *WRITTEN])
def test_one_character_changed_is_seen(campaign, name):
    path = side_files(campaign).get(name, campaign.root / name)
    assert campaign.outdated() == set()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    campaign.outdated()
    assert date_of(path) == OUTDATED


def test_side_files_that_are_folders_or_nobodys_stop_nothing(campaign):
    for path in side_files(campaign).values():
        path.unlink()
        path.mkdir()
    assert campaign.outdated()


def test_dates_from_the_future_become_now(campaign):
    """The clock was set back: Snakemake would find every new output older than its inputs."""
    files = [p for part in (campaign.root, campaign.data, campaign.logs) for p in part.rglob("*.*")]
    tomorrow = time.time_ns() + 86_400 * 10**9
    for path in files:
        os.utime(path, ns=(tomorrow, tomorrow))
    (campaign.data / "prepared/chorales.json").unlink()  # one corpus is to be prepared yet
    campaign.outdated()
    dated = [*campaign.data.glob("prepared/*"), *campaign.root.glob("runs/*/*/setting.json")]
    dated += [campaign.folder / name for name in campaign.rules]
    assert max(map(date_of, dated)) <= time.time_ns()


def test_a_cache_that_files_are_linked_from_keeps_its_dates(campaign, tmp_path):
    """DVC's cache, linked symbolically or hard, may be shared: links are dated, or become files of their own."""
    cache = tmp_path / "cache"
    cache.mkdir()
    linked = [p for part in (campaign.root, campaign.data) for p in part.rglob("*.*") if p.is_file()]
    for i, path in enumerate(linked):
        shutil.move(path, kept := cache / str(i))
        kept.chmod(0o444)
        if i % 2:
            path.symlink_to(kept)
        else:
            path.hardlink_to(kept)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.iterdir()}
    assert campaign.outdated() == set()
    changed = parameters(constraint=[0.2, 0.8])
    assert {*artifacts(CORPORA), *WRITTEN, *PAGES} <= campaign.outdated(changed)
    assert campaign.outdated() == set()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.iterdir()} == before
