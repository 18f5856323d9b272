"""The package as people find it: a wheel without the checkout, a checkout of others, a terminal of another kind."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from importlib.metadata import version
from pathlib import Path

import jupytext
import pytest
from packaging.requirements import Requirement

import spectralgru

ROOT = Path(__file__).parents[2]
USE = """
from spectralgru.pipeline.corpora.nottingham import SPLIT_TABLE
from spectralgru.recurrent.compiled import HEADERS, SOURCES
from spectralgru.resources import PACKAGE
from spectralgru.pipeline.results.paper import load_paper
assert PACKAGE.parent.name == "installed", PACKAGE
assert "ptb" in load_paper().tables
assert SPLIT_TABLE.is_relative_to(PACKAGE) and SPLIT_TABLE.exists()
assert len(SOURCES) == 4 and HEADERS and SOURCES[0].is_relative_to(PACKAGE)
"""


TRAIN = """
import shutil, sys, torch
from spectralgru import GRU, SpectralConstraint, is_stable
assert not any(map(shutil.which, ("cc", "c++", "g++", "gcc", "clang")))
model = torch.nn.ModuleList([GRU(4, 16), torch.nn.GRU(16, 8)])
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
constraint = SpectralConstraint(model, delta=0.2, gates=1.5)
constraint.attach(optimizer)
for _ in range(3):
    model[1](model[0](torch.randn(9, 2, 4))[0])[0].square().sum().backward()
    optimizer.step()
assert is_stable(model[0].weight_hh_l0[32:])
assert constraint.growth_bound() < 10
foreign = {name.partition(".")[0] for name in sys.modules} & {"pydantic", "yaml", "pandas", "mlflow", "typer", "rich"}
assert not foreign, foreign
"""
IMPORT = """
import sys
import spectralgru
assert not {"torch", "numpy"} & set(sys.modules)
import torch
start = set(sys.modules)
for name in spectralgru.__all__:
    getattr(spectralgru, name)
new = {name for name in set(sys.modules) - start if name.partition(".")[0] not in sys.stdlib_module_names}
assert {name.partition(".")[0] for name in new} == {"spectralgru"}, new
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist, built without the network."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=ROOT, check=True)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def with_requirements(names: list[str]) -> set[metadata.Distribution]:
    """These packages as they are installed here, and all that they require."""
    distributions: dict[str, metadata.Distribution] = {}
    left = [Requirement(name) for name in names]
    while left:
        wanted = left.pop()
        if wanted.name not in distributions and (
            wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        ):
            distributions[wanted.name] = metadata.distribution(wanted.name)
            left += map(Requirement, distributions[wanted.name].requires or [])
    return set(distributions.values())


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with torch and numpy, what they require, and nothing else."""
    place = tmp_path_factory.mktemp("empty")
    venv.create(place, with_pip=False)
    (site,) = place.glob("lib/*/site-packages")
    for distribution in with_requirements(["torch", "numpy"]):
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            here = Path(str(distribution.locate_file(top)))
            if top.endswith(".dist-info"):  # uv sees no links
                shutil.copytree(here, site / top)
            else:
                (site / top).symlink_to(here)
    return place / "bin" / "python"


def install(python: Path, package: Path, *options: str) -> None:
    """Offline; what the package requires must be there."""
    command = ["uv", "pip", "install", "--offline", "--no-index", "--reinstall-package", "spectralgru"]
    subprocess.run([*command, "--python", str(python), *options, str(package)], check=True)


def test_wheel_and_sdist_hold_the_same_and_their_data_files(
    packages: tuple[Path, Path], tmp_path: Path
) -> None:
    wheel, sdist = packages
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, check=True)
    (again,) = source.glob("dist/*.whl")
    assert again.read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run([sys.executable, "-c", USE], check=True, env=environment, cwd=tmp_path)


def test_it_installs_offline_beside_torch_and_trains_without_a_compiler(
    packages: tuple[Path, Path], empty: Path, tmp_path: Path
) -> None:
    install(empty, packages[0])
    here = {"PATH": str(empty.parent), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([empty, "-c", TRAIN], check=True, env=here, cwd=tmp_path)
    done = subprocess.run(
        [empty, "-m", "spectralgru.training", "--help"],
        env=here,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_without_the_pipeline_the_command_says_what_to_install(
    packages: tuple[Path, Path], empty: Path, tmp_path: Path
) -> None:
    install(empty, packages[0])
    for command in ([empty.parent / "spectralgru"], [empty, "-m", "spectralgru"]):
        done = subprocess.run([*command, "doctor"], cwd=tmp_path, env={}, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert "typer" in done.stderr
        assert "pip install 'spectralgru[pipeline]'" in done.stderr


def test_the_notebook_runs_beside_torch_alone(
    packages: tuple[Path, Path], empty: Path, tmp_path: Path
) -> None:
    source = ROOT / "examples/why_it_exploded.py"
    notebook = jupytext.read(source.with_suffix(".ipynb"))
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in jupytext.read(source).cells]
    install(empty, packages[0])
    (tmp_path / "cells.py").write_text(
        "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    )
    here = {"PATH": str(empty.parent), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([empty, "cells.py"], cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cause: candidate (gru.weight_hh_l0)" in done.stdout
    largest = {
        line[:32].strip(): float(line.split()[-1])
        for line in done.stdout.split("largest gradient")[1].splitlines()[1:6]
    }
    assert largest["constraint, delta 0.2"] < largest["clipped at 1"] < largest["nothing"]
    assert list(tmp_path.glob("*/explosion-*.pt"))


def test_importing_it_loads_no_torch_and_using_it_nothing_else(tmp_path: Path) -> None:
    """That is what makes the import take milliseconds beside torch's seconds."""
    subprocess.run(
        [sys.executable, "-c", IMPORT], check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    )


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


def test_the_version_is_the_installed_one() -> None:
    done = subprocess.run([sys.executable, "-m", "spectralgru", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"spectralgru {version('spectralgru')}\n")
