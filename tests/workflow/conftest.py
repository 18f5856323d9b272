"""The real workflow in a folder of its own, on real corpora, with networks small enough for seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from forks import Fork

ROOT = Path(__file__).parents[2]


class Project:
    """A working folder with its own params.yaml, data, results and MLflow store."""

    def __init__(self, folder, corpora, data, commands=Path(sys.executable).parent):
        self.folder, self.python = folder, str(commands / "python")
        self.environment = {
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": "",
        }
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        for settings in values["quick"]["settings"].values():
            settings["model"]["hidden_size"] = 12
            settings["training"] |= {"epochs": 2, "trace_every": 5}
        ptb, chorales = (values["quick"]["settings"][corpus] for corpus in ("ptb", "chorales"))
        ptb["data"] = {"train": 4000, "valid": 1000, "test": 1000, "vocabulary": 100}
        chorales["data"] = {"train": 20, "valid": 5, "test": 5}
        for settings, threshold in ((ptb, 5), (chorales, 15)):
            settings["methods"] = {"constraint": [0.2, 0.5], "clipping": [threshold], "none": False}
        values["quick"] |= {"run": list(corpora), "seeds": [0, 1]}
        self.values = values
        self.write_params()
        if data is not None:
            shutil.copytree(
                data / "prepared", folder / "data" / "prepared", ignore=shutil.ignore_patterns(".*")
            )

    def write_params(self):
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.values))

    def start(self, *arguments, **options):
        """Start `snakemake` on the project's own Snakefile."""
        command = [self.python, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
        command, environment = [*command, *arguments], {**self.environment, **options}
        if "PYTHONPATH" in options:  # other sources than those that are imported already
            command[0] = sys.executable
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            return subprocess.Popen(command, cwd=self.folder, env=environment, **streams)
        return Fork(command, cwd=self.folder, env=environment, merged=True)

    def run(self, *arguments, **options):
        """Run `snakemake` to its end: exit code and output."""
        process = self.start(*arguments, **options)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def planned(self, *arguments, **options):
        """Jobs that a dry run lists, as {rule: {wildcards, ...}}."""
        code, output = self.run("-n", *arguments, **options)
        assert code == 0, output
        jobs, rule = {}, None
        for line in output.splitlines():
            if line.startswith(("rule ", "localrule ")):
                rule = line.split()[1].rstrip(":")
                jobs.setdefault(rule, set())
            elif line.startswith("    wildcards:"):
                jobs[rule].add(line.split(":", 1)[1].strip())
        return jobs

    def results(self, corpus):
        """Summaries of a corpus' runs, with their metrics to the last bit, and its table."""
        root = self.folder / "results/quick"
        paths = [*root.glob(f"runs/{corpus}/*/setting.json"), *root.glob("tables/table1.*")]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}

    def tables(self):
        """Content of every table."""
        return {
            path.name: path.read_bytes() for path in sorted((self.folder / "results/quick/tables").iterdir())
        }


@pytest.fixture
def empty_project(tmp_path):
    """No data yet."""
    return Project(tmp_path, ["ptb", "chorales"], None)


@pytest.fixture
def project(tmp_path, ptb, data):
    """Words only, data there; its commands are those of a real environment."""
    return Project(tmp_path, ["ptb"], data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ptb, chorales, data, commands):
    """Both corpora, run to the end once for the tests that look at it or go on from it."""
    project = Project(tmp_path_factory.mktemp("finished"), ["ptb", "chorales"], data, commands)
    project.first_run = project.run()
    project.first_results = project.results("ptb")
    return project
