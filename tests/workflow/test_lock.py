"""The lock file, pyproject.toml, the conda file and what is installed agree."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = (ROOT / "envs/requirements.lock").read_text().splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.lstrip().startswith("#")]
WANTED = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
    if not text.startswith("spectralgru[")  # extras of its own, listed themselves
]


def pinned(name):
    """Versions in the lock (more than one where platforms differ)."""
    found = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [Version(str(pin.specifier).removeprefix("==")) for pin in found]


def test_every_line_is_an_exact_pin():
    assert len(PINS) > 100
    for pin in PINS:
        assert [part.operator for part in pin.specifier] == ["=="], str(pin)


def test_every_pin_but_torch_has_its_hashes():
    """torch has builds for CPUs and CUDA under one version; what else comes is what was locked."""
    blocks = re.split(r"\n(?=\S)", (ROOT / "envs/hashes.lock").read_text())
    hashed = {block.split(" ")[0] for block in blocks if "--hash=sha256:" in block}
    assert len(hashed) == len({block.split(" ")[0] for block in blocks})
    wanted = {f"{pin.name.partition('[')[0]}{pin.specifier}" for pin in PINS if pin.name != "torch"}
    assert hashed == wanted


def test_a_file_with_another_hash_is_not_installed(tmp_path):
    (tmp_path / "hashes").write_text(f"six==1.16.0 --hash=sha256:{'0' * 64}\n")
    package = tmp_path / "six-1.16.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(package, "w") as wheel:
        wheel.writestr("six.py", "")
        wheel.writestr("six-1.16.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: six\nVersion: 1.16.0\n")
        wheel.writestr("six-1.16.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr("six-1.16.0.dist-info/RECORD", "")
    command = [
        "uv",
        "pip",
        "install",
        "--no-index",
        "--find-links",
        str(tmp_path),
        "--target",
        str(tmp_path / "t"),
    ]
    command += ["--python", sys.executable, "six==1.16.0", "-c", str(tmp_path / "hashes")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    assert "Hash mismatch" in done.stderr


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_every_dependency_is_pinned_within_its_bounds(wanted):
    assert pinned(wanted.name)
    for version in pinned(wanted.name):
        assert wanted.specifier.contains(version, prereleases=True)


def test_the_closure_is_whole():
    """Whatever a pinned package needs here, extras that pyproject.toml asks for included, is pinned too."""
    extras = {canonicalize_name(wanted.name): wanted.extras for wanted in WANTED}
    excluded = {canonicalize_name(n) for n in (ROOT / "envs/lock-excludes.txt").read_text().split()}
    missing = set()
    for pin in PINS:
        if pin.marker and not pin.marker.evaluate():
            continue
        chosen = {"", *extras.get(canonicalize_name(pin.name), ())}
        for text in metadata.requires(pin.name) or []:
            needed = Requirement(text)
            applies = needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in chosen)
            if applies and canonicalize_name(needed.name) not in excluded and not pinned(needed.name):
                missing.add(f"{pin.name} needs {needed.name}")
    assert not missing


def test_what_is_installed_is_what_is_locked():
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate():
            installed = Version(metadata.version(pin.name))
            assert installed.public == str(pinned(pin.name)[0]) or installed in pinned(pin.name), pin.name


def test_pip_finds_no_conflict():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_conda_file_installs_the_lock():
    environment = yaml.safe_load((ROOT / "workflow/envs/environment.yaml").read_text())
    python, pip, compiler, installed = environment["dependencies"]
    assert (pip, compiler) == ("pip", "cxx-compiler")
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert f"--python-version {python.removeprefix('python=')}" in (ROOT / "Makefile").read_text()
    assert installed["pip"] == ["-r ../../envs/requirements.lock", "-e ../.."]


def test_no_torch_build_is_forced_on_anyone():
    """CUDA packages come with torch where its build wants them; a lock with them would suit one build only."""
    assert [str(version) for version in pinned("torch")] == ["2.13.0"]
    assert not [pin.name for pin in PINS if pin.name.startswith(("nvidia-", "cuda-", "triton"))]
