"""The package as people find it: a wheel without the checkout, a checkout of others, a terminal of another kind."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import spectralgru

ROOT = Path(__file__).parents[2]
USE = """
from spectralgru.pipeline.corpora.nottingham import SPLIT_TABLE
from spectralgru.recurrent.compiled import SOURCE
from spectralgru.resources import PACKAGE
from spectralgru.pipeline.results.paper import load_paper
assert PACKAGE.parent.name == "installed", PACKAGE
assert "ptb" in load_paper().tables
assert SPLIT_TABLE.is_relative_to(PACKAGE) and SPLIT_TABLE.exists()
assert SOURCE.is_relative_to(PACKAGE) and SOURCE.exists()
"""


def test_a_wheel_brings_its_data_files(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run([sys.executable, "-c", USE], check=True, env=environment, cwd=tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user: needs root")
def test_the_commit_is_known_of_a_checkout_that_another_user_owns(tmp_path: Path) -> None:
    package = shutil.copytree(Path(spectralgru.__file__).parent, tmp_path / "src" / "spectralgru")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", str(package / "errors.py")], ["commit", "-q", "-m", "One"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 1001, 1001)
    show = "from spectralgru.training.environment import git_commit; print(git_commit())"
    here = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", show], env=here, capture_output=True, text=True)
    assert done.stdout.strip() == commit, done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_help_is_shown_wherever_it_is_typed(encoding: str) -> None:
    here = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "60"}
    command = [sys.executable, "-m", "spectralgru", "train", "--help"]
    done = subprocess.run(command, env=here, capture_output=True, encoding=encoding)
    assert done.returncode == 0, done.stderr
    assert "Usage: python -m spectralgru train" in done.stdout
