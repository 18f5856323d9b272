"""A Snakemake's lock is removed only where it is certain that this Snakemake has ended: with real users."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spectralgru.pipeline.presence import FOLDER, here

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflow/scripts/unlock_stale.py"
HOLD = "from spectralgru.pipeline.presence import be_present; be_present(); print(flush=True); input()"
# Ordinary users to the kernel; the first may read this environment wherever it lies, the second is uid 0 with no power.
ANNA = [
    *("setpriv", "--reuid", "1001", "--regid", "1500", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]
BEN = ["setpriv", "--groups", "1500", "--bounding-set=-all", "--inh-caps=-all"]
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes other users: needs root and setpriv"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that a Snakemake has locked."""
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / "Snakefile").write_text("rule all:\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hold(*user):
    """Start a process that is present; with the lock of its Snakemake."""
    if user == tuple(ANNA):
        for path in (Path(), *Path().rglob("*")):
            os.chown(path, 1001, 1500)
            path.chmod(0o2775 if path.is_dir() else 0o664)
    process = subprocess.Popen(
        [*user, sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        umask=0o002,
    )
    assert process.stdout.readline() == "\n"
    lock = Path(".snakemake/locks/0.input.lock")
    lock.write_text("results\n")
    if user == tuple(ANNA):
        os.chown(lock, 1001, 1500)
    return process


def unlock(*user):
    """Whether the lock was taken away; what was said."""
    done = subprocess.run([*user, sys.executable, SCRIPT], capture_output=True, text=True)
    unlocked = not list(Path(".snakemake").glob("locks/*"))
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if unlocked else 1), done.stderr
    assert unlocked or f"rm -rf {FOLDER} && {sys.executable} -m snakemake --unlock" in done.stderr
    return unlocked, done.stderr


@pytest.mark.parametrize(
    ("holder", "other"),
    [
        ([], []),
        pytest.param(ANNA, BEN, marks=needs_root),
        pytest.param(ANNA, [], marks=needs_root),
        pytest.param([], CONTAINER, marks=needs_root),
        pytest.param(CONTAINER, [], marks=needs_root),
    ],
    ids=["same user", "other user", "root", "from a container", "of a container"],
)
def test_the_lock_of_the_living_stays_and_that_of_the_killed_goes(folder, holder, other):
    process = hold(*holder)
    unlocked, said = unlock(*other)
    assert not unlocked
    assert "process" in said
    process.kill()
    process.wait()
    unlocked, said = unlock(*other)
    assert unlocked, said
    assert not list(FOLDER.glob("*.json"))
    process.communicate()


def test_one_that_ended_by_itself_leaves_nothing(folder):
    hold().communicate("\n")
    assert not list(FOLDER.iterdir())


def record(**changes):
    FOLDER.mkdir(parents=True)
    (FOLDER / "a.json").write_text(json.dumps(here().model_dump() | changes))
    Path(".snakemake/locks/0.input.lock").touch()


def test_a_reboot_ended_it(folder):
    if not here().machine:
        pytest.skip("this machine has no /etc/machine-id to be known by after a reboot")
    record(boot="another")
    assert unlock()[0]


@pytest.mark.parametrize(
    "changes", [{"boot": "another", "host": "elsewhere"}, {"boot": "another", "machine": ""}, {"pid": "x"}]
)
def test_of_another_machine_nothing_is_certain(folder, changes):
    record(**changes)
    assert not unlock()[0]


def test_a_lock_without_a_record_stays(folder):
    Path(".snakemake/locks/0.input.lock").touch()
    unlocked, said = unlock()
    assert not unlocked
    assert "left no record" in said
