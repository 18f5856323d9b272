"""What a DVC user expects of dvc.yaml, on a scratch repository with networks small enough for seconds."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from spectralgru.pipeline.corpora import CORPORA
from spectralgru.training.settings import SOURCES

ROOT = Path(__file__).parents[2]
SETTINGS, OTHERS = "quick.settings.ptb", "quick.settings.chorales"


class Repository:
    """A git and DVC repository; commands run in it, those of a folder before others."""

    def __init__(self, folder, commands):
        self.folder, self.commands = folder, commands
        self.environment = {
            **os.environ,
            "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": "",
            "DVC_NO_ANALYTICS": "1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }

    def run(self, *command):
        """Run a command to its end; what it printed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def dvc(self, *arguments):
        return self.run("dvc", *arguments)

    def commit(self, message):
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def clone(self, folder, remote=None):
        """What someone else gets: no cache, no results, no memory of Snakemake."""
        self.run("git", "clone", "--quiet", str(self.folder), str(folder))
        other = Repository(folder, self.commands)
        if remote:
            other.dvc("remote", "add", "--default", "--force", "--local", "store", remote)
        return other

    def change(self, key, value):
        """Change one number of params.yaml."""
        path = self.folder / "params.yaml"
        values = node = yaml.safe_load(path.read_text())
        *parents, last = key.split(".")
        for name in parents:
            node = node[name]
        node[last] = value
        path.write_text(yaml.safe_dump(values))

    def planned(self):
        """Rules and wildcards that Snakemake would run."""
        output = self.run("snakemake", "--dry-run", "--cores", "2")
        if "Nothing to be done" in output:
            return set()
        lines = output.splitlines()
        jobs = {line.split()[1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule "))}
        return jobs | {line.split(":", 1)[1].strip() for line in lines if "    wildcards:" in line}


def trained(output):
    """Settings that a run of Snakemake trained."""
    return {
        part for line in output.splitlines() if "setting=" in line for part in [line.split("setting=")[1]]
    }


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    return str(tmp_path_factory.mktemp("remote"))


@pytest.fixture(scope="module")
def first(tmp_path_factory, ptb, data, remote, commands):
    """A first commit, reproduced and pushed; tests clone it."""
    folder = tmp_path_factory.mktemp("first")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    shutil.copytree(data / "prepared", folder / "data" / "prepared", ignore=shutil.ignore_patterns("[!p]*"))
    repository = Repository(folder, commands)
    for key, value in {
        "quick.run": ["ptb"],
        "quick.seeds": [0],
        f"{SETTINGS}.model.hidden_size": 12,
        f"{SETTINGS}.training.epochs": 2,
        f"{SETTINGS}.data": {"train": 4000, "valid": 1000, "test": 1000, "vocabulary": 100},
        f"{SETTINGS}.methods": {"constraint": [0.2], "clipping": [5], "none": False},
    }.items():
        repository.change(key, value)
    repository.run("git", "init", "--quiet")
    repository.dvc("remote", "add", "--default", "--local", "store", remote)
    repository.output = repository.dvc("repro")
    repository.commit("First")
    repository.dvc("push")
    return repository


@pytest.fixture(scope="module")
def second(first, tmp_path_factory, remote):
    """A second commit on a clone: one delta, and one number of a corpus that does not run, by `dvc exp run -S`."""
    repository = first.clone(tmp_path_factory.mktemp("second"), remote)
    repository.dvc("pull")
    changes = ("-S", f"{SETTINGS}.methods.constraint=[0.3]", "-S", f"{OTHERS}.training.epochs=7")
    repository.output = repository.dvc("exp", "run", *changes)
    repository.metrics = repository.dvc("metrics", "diff")
    repository.params = repository.dvc("params", "diff")
    repository.commit("Second")
    return repository


@pytest.fixture
def copy(first, tmp_path, remote):
    """A clone with its artifacts pulled."""
    repository = first.clone(tmp_path / "copy", remote)
    repository.dvc("pull")
    return repository


def numbers(values, at=()):
    """Every number of nested values, by its path."""
    if not isinstance(values, dict):
        return {".".join(at): values}
    return {path: leaf for key, value in values.items() for path, leaf in numbers(value, (*at, key)).items()}


LEAVES = [
    *(f"{scale}.settings.{corpus}.training.epochs" for scale in ("quick", "paper") for corpus in CORPORA),
    *(f"quick.experiments.learning_rate.corpora.{corpus}.epochs" for corpus in ("ptb", "nottingham")),
    *(f"paper.experiments.cost.corpora.{corpus}.warm_up" for corpus in CORPORA),
]


@pytest.mark.parametrize("key", LEAVES)
def test_a_number_set_by_dvc_changes_that_number_alone(tmp_path, key):
    file = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", file)
    before = numbers(yaml.safe_load(file.read_text()))
    apply_overrides(file, [f"{key}=7"])  # what `dvc exp run -S` does to the file
    assert before[key] != 7
    assert numbers(yaml.safe_load(file.read_text())) == before | {key: 7}


def test_training_depends_on_the_sources_of_a_runs_key():
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["deps"]
    sources = {f"src/spectralgru/{pattern.split('/*')[0]}" for pattern in SOURCES}
    assert sorted(listed) == sorted(sources | {"data/prepared"})
    # DVC depends on all that is below a folder, the key of a run on its sources alone.
    for folder in (ROOT / "src/spectralgru").rglob("training/**/*"):
        assert folder.is_dir() or folder.suffix in (".py", ".pyc")


def test_repro_makes_everything_and_again_nothing(first):
    assert trained(first.output) == {"constraint-0.2", "clipping-5"}
    assert (first.folder / "results/quick/tables/table1.md").exists()
    again = first.dvc("repro")
    assert again.count("didn't change, skipping") == 3
    assert "up to date" in first.dvc("status")
    dag = first.dvc("dag", "--dot")
    assert '"prepare" -> "train"' in dag
    assert '"train" -> "results"' in dag


def test_metrics_show_every_setting(first):
    shown = json.loads(first.dvc("metrics", "show", "--json"))
    values = shown[""]["data"]["results/quick/tables/metrics.json"]["data"]
    assert {"ptb/constraint-0.2/success", "ptb/clipping-5/success"} <= values.keys()


def test_plots_need_no_network(first):
    first.dvc("plots", "show")
    page = (first.folder / "dvc_plots/index.html").read_text()
    assert page.count("vegaEmbed('#") == 3
    assert "<script src" not in page
    assert '"setting": "constraint-0.2"' in page


def test_pulled_artifacts_are_up_to_date_for_snakemake_too(copy):
    assert copy.planned() == set()
    assert "up to date" in copy.dvc("status")


def test_a_setting_taken_out_goes_from_the_tables_trains_nothing_and_leaves_a_shared_cache_as_it_was(copy):
    """With artifacts that are links into the cache."""
    copy.dvc("config", "--local", "cache.type", "symlink")
    copy.dvc("checkout", "--relink")
    assert (copy.folder / "results/quick/report.html").is_symlink()
    cached = [path for path in (copy.folder / ".dvc/cache/files").rglob("*") if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cached}
    assert copy.planned() == set()
    copy.change(f"{SETTINGS}.methods.clipping", [])
    assert trained(copy.dvc("repro")) == set()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert (copy.folder / "results/quick/runs/ptb/clipping-5/setting.json").exists()
    assert "clipping" not in (copy.folder / "results/quick/tables/metrics.json").read_text()
    assert "ptb/clipping-5/success" in copy.dvc("metrics", "diff")


def test_pulled_artifacts_are_known_to_be_of_other_parameters(copy):
    copy.change(f"{SETTINGS}.training.epochs", 3)
    jobs = copy.planned()
    assert {"corpus=ptb, setting=constraint-0.2", "corpus=ptb, setting=clipping-5"} <= jobs
    copy.change(f"{SETTINGS}.training.epochs", 2)
    assert copy.planned() == set()


def test_an_experiment_with_another_delta_trains_that_delta_alone(second):
    assert trained(second.output) == {"constraint-0.3"}
    assert "ptb/constraint-0.2/success" in second.metrics
    assert "ptb/constraint-0.3/success" in second.metrics
    assert f"{SETTINGS}.methods.constraint" in second.params
    (epochs,) = (line for line in second.params.splitlines() if f"{OTHERS}.training.epochs" in line)
    assert epochs.split()[-1] == "7"
    assert "quick.settings.musedata" not in second.params
    page = second.dvc("plots", "diff", "HEAD~1", "HEAD", "--targets", "validation", "--show-vega")
    assert "constraint-0.2" in page
    assert "constraint-0.3" in page


def test_checkout_of_an_old_commit_brings_its_artifacts_back(second):
    new = (second.folder / "results/quick/tables/table1.csv").read_text()
    second.run("git", "checkout", "--quiet", "HEAD~1")
    second.dvc("checkout")
    old = (second.folder / "results/quick/tables/table1.csv").read_text()
    assert "constraint-0.2" in old
    assert "constraint-0.3" not in old
    assert second.planned() == set()
    second.run("git", "checkout", "--quiet", "-")
    second.dvc("checkout")
    assert (second.folder / "results/quick/tables/table1.csv").read_text() == new
    assert second.planned() == set()


def test_gc_keeps_what_the_workspace_needs(second, first, tmp_path, remote):
    here = first.clone(tmp_path / "here", remote)
    here.dvc("pull")
    here.run("git", "pull", "--quiet", str(second.folder), "HEAD")
    second.dvc("push")
    here.dvc("pull")
    cached = set((here.folder / ".dvc/cache").rglob("*"))
    here.dvc("gc", "--workspace", "--force")
    assert set((here.folder / ".dvc/cache").rglob("*")) < cached
    assert "up to date" in here.dvc("status")
    here.run("git", "checkout", "--quiet", "HEAD~1")
    here.dvc("pull")  # the remote still has it
    assert here.planned() == set()


@pytest.fixture
def bucket(tmp_path):
    """An S3 server of its own on a free port, with a bucket; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "s3.log").open("w") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        create = urllib.request.Request(f"{address}/artifacts", method="PUT")
        for _ in range(200):
            try:
                urllib.request.urlopen(create, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "s3.log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def test_push_and_pull_through_s3(first, copy, tmp_path, bucket):
    copy.dvc("remote", "add", "--default", "--local", "--force", "store", "s3://artifacts/spectralgru")
    copy.dvc("remote", "modify", "--local", "store", "endpointurl", bucket)
    assert "pushed" in copy.dvc("push")
    other = first.clone(tmp_path / "other", "s3://artifacts/spectralgru")
    other.dvc("remote", "modify", "--local", "store", "endpointurl", bucket)
    assert "fetched" in other.dvc("pull")
    for path in ("tables/table1.csv", "runs/ptb/constraint-0.2/seed-0/model.safetensors"):
        assert (other.folder / "results/quick" / path).read_bytes() == (
            copy.folder / "results/quick" / path
        ).read_bytes()
    assert other.planned() == set()
