import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import spectralgru

ROOT = Path(__file__).parents[2]


def test_lint_and_format():
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in (["snakemake", "--lint"], ["snakefmt", "--check", "Snakefile", "workflow/rules"]):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dry_run_without_any_data(empty_project):
    jobs = empty_project.planned()
    assert jobs["prepare_corpus"] == {"corpus=ptb", "corpus=chorales"}
    assert len(jobs["train_setting"]) == 6
    assert jobs["track_runs"] == {"corpus=ptb", "corpus=chorales"}
    assert {"draw_figures", "write_tables", "all"} <= jobs.keys()
    assert not (empty_project.folder / "results").exists()


def test_another_corpus_is_one_option_away(empty_project):
    jobs = empty_project.planned("--config", "corpora=nottingham")
    assert jobs["prepare_corpus"] == {"corpus=nottingham"}
    assert all("nottingham" in job for job in jobs["train_setting"])


def test_everything_is_made(finished):
    code, output = finished.first_run
    assert code == 0, output
    assert "make report" in output
    assert "scale=paper" in output
    results = finished.folder / "results" / "quick"
    assert {"table1.md", "table1.csv", "table1.tex", "table1.html", "table2.md", "metrics.json"} <= set(
        finished.tables()
    )
    assert len(list((results / "figures").glob("*.svg"))) == 12
    claims = json.loads((results / "claims.json").read_text())
    assert {claim["corpus"] for claim in claims} == {"ptb", "chorales"}
    assert (results / "article.pdf").read_bytes().startswith(b"%PDF-")
    page = (results / "report.html").read_text()
    assert all(claim["statement"].split("(")[0] in page for claim in claims)
    for run in results.glob("runs/*/*/seed-*"):
        assert {p.name for p in run.iterdir()} == {
            "run.json",
            "history.csv",
            "steps.csv",
            "model.safetensors",
        }
    assert len(list(results.glob("runs/*/*/seed-*/run.json"))) == 12
    assert (finished.folder / "mlflow.db").exists()
    for log in (finished.folder / "logs").rglob("*.tsv"):
        assert "s\th:m:s" in log.read_text()


def test_constrained_runs_never_leave_the_bound(finished):
    for run in (finished.folder / "results/quick/runs").glob("*/constraint-*/seed-*"):
        delta = float(run.parent.name.removeprefix("constraint-"))
        header, *rows = (run / "steps.csv").read_text().splitlines()
        sigma = [float(row.split(",")[header.split(",").index("sigma_max")]) for row in rows]
        assert sigma
        assert max(sigma) <= (2 - delta) * (1 + 1e-6)


def test_the_second_time_nothing_is_done(finished):
    for target in ("all", "report", "article"):
        code, output = finished.run(target)
        assert code == 0
        assert "Nothing to be done" in output


def test_a_caption_trains_nothing(finished, tmp_path):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    shutil.copy(ROOT / "Snakefile", tmp_path)
    for caption in (tmp_path / "workflow/report").glob("*.rst"):
        caption.write_text("Another caption.")
    code, output = finished.run("-n", "--snakefile", str(tmp_path / "Snakefile"))
    assert code == 0, output
    assert "Nothing to be done" in output


def test_a_change_of_the_trainers_code_trains_again(finished, tmp_path):
    package = shutil.copytree(Path(spectralgru.__file__).parent, tmp_path / "src" / "spectralgru")
    shutil.copytree(ROOT / "resources", tmp_path / "resources")
    here = {"PYTHONPATH": str(tmp_path / "src")}
    assert "train_setting" not in finished.planned(**here)
    with (package / "pipeline" / "results" / "tables.py").open("a") as file:
        file.write("# only a table\n")
    assert "train_setting" not in finished.planned(**here)
    with (package / "training" / "clipping.py").open("a") as file:
        file.write("# how runs come about\n")
    assert len(finished.planned(**here)["train_setting"]) == 6


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_another_member_of_the_group_goes_on_in_a_shared_folder(finished, tmp_path):
    """To the kernel root without capabilities is a user like others, here one who owns none of the files."""
    shared = tmp_path / "shared"
    shutil.copytree(finished.folder, shared, copy_function=shutil.copy2)
    for path in (shared, *shared.rglob("*")):
        os.chown(path, 1001, 1500)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    values = yaml.safe_load((shared / "params.yaml").read_text())
    values["quick"]["settings"]["ptb"]["methods"]["constraint"] = [0.5]
    (shared / "params.yaml").write_text(yaml.safe_dump(values))
    member = ["setpriv", "--groups", "1500", "--bounding-set=-all", "--inh-caps=-all"]
    command = [
        *member,
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(ROOT / "Snakefile"),
        "--cores",
        "1",
        "-n",
    ]
    done = subprocess.run(command, cwd=shared, env=finished.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the date cannot be set" not in done.stderr
    assert "write_tables" in done.stdout + done.stderr
    assert "train_setting" not in done.stdout + done.stderr


def test_jobs_find_their_own_command_without_activation(project):
    """As `.venv/bin/snakemake` typed in a fresh shell."""
    code, output = project.run("results/quick/runs/ptb/clipping-5/setting.json", PATH="/usr/bin:/bin")
    assert code == 0, output


def test_one_delta_changed_trains_that_delta_only(finished):
    before = {
        path: path.stat().st_mtime_ns
        for path in finished.folder.glob("results/quick/runs/*/*/seed-*/run.json")
    }
    methods = finished.values["quick"]["settings"]["ptb"]["methods"]
    methods["constraint"] = [0.3, 0.5]
    finished.write_params()
    jobs = finished.planned()
    assert jobs.pop("train_setting") == {"corpus=ptb, setting=constraint-0.3"}
    assert jobs.pop("track_runs") == {"corpus=ptb", "corpus=chorales"}  # with the samples of all
    assert jobs.pop("draw_figures") == {"corpus=ptb"}
    assert jobs.keys() == {
        "write_tables",
        "write_claims",
        "write_provenance",
        "write_samples",
        "write_report",
        "write_article",
        "all",
    }
    code, output = finished.run()
    assert code == 0, output
    assert "constraint-0.3" in (finished.folder / "results/quick/tables/table1.csv").read_text()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_one_seed_more_trains_one_run_more(finished):
    before = {
        path: path.stat().st_mtime_ns
        for path in finished.folder.glob("results/quick/runs/*/*/seed-*/run.json")
    }
    finished.values["quick"]["seeds"] = [0, 1, 2]
    finished.write_params()
    code, output = finished.run("results/quick/runs/ptb/clipping-5/setting.json")
    assert code == 0, output
    setting = finished.folder / "results/quick/runs/ptb/clipping-5"
    assert json.loads((setting / "seed-2/run.json").read_text())["seed"] == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_snakemakes_own_report_is_one_page(finished):
    code, output = finished.run("--report", "workflow-report.html")
    assert code == 0, output
    page = (finished.folder / "workflow-report.html").read_text()
    assert "ptb-learning_curves" in page
    assert not re.search(r'<(script|link)[^>]+(src|href)="https?://', page)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("settings.ptb.methods.constraint", [2.5], "constraint.0 is 2.5: must be less than 2"),
        ("settings.ptb.methods.constraint", ["x"], "constraint.0 is 'x': must be a valid number"),
        ("colour", "blue", "unknown key quick.colour"),
    ],
)
def test_bad_parameters_are_one_line(empty_project, path, value, message):
    node = empty_project.values["quick"]
    *keys, last = path.split(".")
    for key in keys:
        node = node[key]
    node[last] = value
    empty_project.write_params()
    code, output = empty_project.run()
    assert code != 0
    assert message in output
    assert "Traceback" not in output


def test_python_in_params_yaml_is_refused_and_not_run(empty_project):
    file = empty_project.folder / "params.yaml"
    macros = '__use_yte__: true\n__definitions__:\n  - import os\n  - os.system("touch ESCAPE")\n'
    file.write_text(macros + file.read_text())
    code, output = empty_project.run("-n")
    assert code == 2, output
    assert "spectralgru: params.yaml: unknown key __use_yte__; remove it" in output
    assert list(empty_project.folder.glob("ESCAPE")) == []


def test_an_override_that_jobs_would_not_see_is_refused(empty_project):
    code, output = empty_project.run("-n", "--config", "quick={seeds: [5]}")
    assert code != 0
    assert "jobs would not see it" in output


def test_a_failed_job_shows_the_end_of_its_log(project):
    path = project.folder / "data/prepared/ptb.npz"
    path.write_bytes(path.read_bytes()[:1000])
    code, output = project.run("results/quick/runs/ptb/clipping-5/setting.json", "--retries", "0")
    assert code != 0
    assert "damaged" in output
    assert "spectralgru prepare --corpus ptb" in output


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_killed_and_started_again_it_comes_to_the_same_tables(project, finished, kill):
    target = "results/quick/tables/table1.csv"
    process = project.start(target)
    deadline = time.monotonic() + 120
    while not list(project.folder.glob("results/quick/runs/ptb/*/setting.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, kill)
    process.communicate(timeout=60)
    unlock = [sys.executable, ROOT / "workflow/scripts/unlock_stale.py", "--snakefile", ROOT / "Snakefile"]
    subprocess.run(unlock, cwd=project.folder, env=project.environment, check=True)
    project.python, project.environment = finished.python, finished.environment  # forks, which nobody kills
    code, output = project.run(target)
    assert code == 0, output
    assert len(finished.first_results) == 7
    assert project.results("ptb") == finished.first_results
