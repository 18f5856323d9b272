"""The workflow in other people's hands: deployed, imported, with their own configuration and folders."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import forks

ROOT = Path(__file__).parents[2]
MODULE = """\
configfile: "config/config.yaml"

module spectralgru:
    snakefile: "{root}/workflow/Snakefile"
    config: config
    {prefix}

use rule * from spectralgru{names}
"""
PLACES = {"data": "my/data", "results": "my/results", "logs": "my/logs"}


def snakemake(folder, *arguments, commands=Path(sys.executable).parent):
    """Exit code and output of `snakemake` in `folder`."""
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "MLFLOW_TRACKING_URI": ""}
    command = [commands / "python", "-m", "snakemake", "--cores", "2", *arguments]
    done = forks.run(command, cwd=folder, env=environment)
    return done.returncode, done.stdout + done.stderr


def plan(folder, *arguments):
    """Number of jobs of each rule in a dry run."""
    code, output = snakemake(folder, "--dry-run", *arguments)
    assert code == 0, output
    (table, *_) = output.split("Job stats:\n", 1)[1].split("\n\n", 1)
    return {name: int(count) for name, count in (line.split() for line in table.splitlines()[2:])}


def importing(folder, prefix="", names="", **more):
    """A workflow that imports ours, with a configuration of its own."""
    (folder / "workflow").mkdir()
    (folder / "workflow/Snakefile").write_text(MODULE.format(root=ROOT, prefix=prefix, names=names))
    (folder / "config").mkdir()
    small = (ROOT / ".test/config/config.yaml").read_text()
    (folder / "config/config.yaml").write_text(small + "".join(f"{k}: {v}\n" for k, v in more.items()))
    return folder


@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_either_snakefile_plans_the_same(tmp_path, scale):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    root, standard = (
        plan(tmp_path, "--snakefile", ROOT / name, "--config", f"scale={scale}")
        for name in ("Snakefile", "workflow/Snakefile")
    )
    assert root == standard
    assert root["total"] > 30
    assert {path.name for path in tmp_path.iterdir()} <= {"params.yaml", ".snakemake"}


def test_a_deployment_plans_what_the_project_plans(tmp_path):
    source, deployed = tmp_path / "source", tmp_path / "deployed"
    listed = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "config",
        "workflow",
        "profiles",
    ]
    for name in subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    shutil.copy(ROOT / "params.yaml", source)
    command = [Path(sys.executable).with_name("snakedeploy"), "deploy-workflow", source, deployed]
    subprocess.run([*command, "--branch", "main", "--name", "spectralgru"], check=True)
    # From a local folder snakedeploy writes a path relative to nothing; from GitHub it writes the address.
    snakefile = deployed / "workflow/Snakefile"
    snakefile.write_text(
        snakefile.read_text().replace('"workflow/Snakefile"', f'"{source}/workflow/Snakefile"')
    )
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert plan(deployed) == plan(tmp_path, "--snakefile", ROOT / "Snakefile")


def test_imported_with_a_prefix_and_other_names_everything_lies_below_the_prefix(tmp_path):
    folder = importing(tmp_path, 'prefix: "below"', " as gru_*", **PLACES)
    assert plan(folder)["gru_train_setting"] == 3
    code, output = snakemake(folder, "-n", "--printshellcmds")
    assert code == 0
    for command in (line for line in output.splitlines() if line.strip().startswith("spectralgru ")):
        if " prepare " not in command:
            assert "--params below/my/results/params.yaml" in command
            assert "--out below/my/results/quick" in command
        assert "> below/my/logs/" in command


def test_imported_it_makes_everything_in_the_users_own_places(tmp_path, ptb, data, commands):
    folder = importing(tmp_path, **PLACES)
    shutil.copytree(data / "prepared", folder / "my/data/prepared", ignore=shutil.ignore_patterns(".*"))
    code, output = snakemake(folder, commands=commands)
    assert code == 0, output
    results = folder / "my/results/quick"
    assert {"report.html", "article.pdf", "provenance.json", "tables", "runs", "tracking"} <= {
        p.name for p in results.iterdir()
    }
    assert json.loads((results / "runs/ptb/clipping-5/setting.json").read_text())["runs"]
    made = {path.name for path in folder.iterdir() if not path.name.startswith((".", "ml"))}
    assert made == {"workflow", "config", "my"}
    code, output = snakemake(folder, "-n")
    assert "Nothing to be done" in output


def test_places_that_cannot_be_are_one_line(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for place in ("results=/dev/null", "data=params.yaml", "logs={x}", "results="):
        code, output = snakemake(tmp_path, "-n", "--snakefile", ROOT / "Snakefile", "--config", place)
        assert code == 2
        assert f"spectralgru: --config {place.partition('=')[0]}=" in output
        assert "Traceback" not in output


def test_bad_parameters_of_an_importing_workflow_are_one_line(tmp_path):
    folder = importing(tmp_path, colour="blue")
    code, output = snakemake(folder, "-n")
    assert code == 2
    assert "spectralgru: config: unknown key colour" in output
    assert "Traceback" not in output
