"""podman, a base image, Apptainer and the image on this machine, for these tests alone: all of it is removed again.

What building needs here besides the recipe is taken from the environment: certificates (SSL_CERT_FILE) and a folder
of wheels (PIP_FIND_LINKS). Where no registry answers, a small Debian of our own stands in for the base image.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images import ROOT, Podman, seconds_long, sh

BASE = "docker.io/library/python:3.11-slim"
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "host"
[engine]
runtime = "runc"
"""
INGREDIENTS = [
    "Makefile",
    ".dockerignore",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "envs",
    "resources",
    "src",
]
WORKFLOW = ["Snakefile", "workflow", "profiles"]


@pytest.fixture(scope="session")
def big_folder() -> Iterator[Path]:
    """For gigabytes: removed even when tests fail, unlike pytest's own folders."""
    folder = Path(tempfile.mkdtemp(prefix="spectralgru-container-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def podman(big_folder: Path) -> Iterator[Podman]:
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("needs root on Debian, to install podman")
    if not all(map(shutil.which, ("podman", "runc", "mmdebstrap"))):
        sh("apt-get", "update", "-q")
        sh("apt-get", "install", "-y", "-q", "--no-install-recommends", "podman", "runc", "mmdebstrap")
    podman = Podman(big_folder)
    (big_folder / "containers.conf").write_text(CONFIGURATION)
    try:
        yield podman
    finally:  # removing images one by one takes minutes: unmount them, and their folder goes with all
        subprocess.run(["umount", "--recursive", str(big_folder / "storage/overlay")], capture_output=True)


@pytest.fixture(scope="session")
def base(podman: Podman) -> None:
    """The image that the recipe begins with."""
    if subprocess.run([*podman.command, "pull", BASE], env=podman.environment).returncode:
        link = '--customize-hook=ln -s python3 "$1/usr/bin/python"'
        podman.import_debian("bookworm", "python3,python3-venv,ca-certificates", BASE, link)


@pytest.fixture(scope="session")
def build_options() -> list[str]:
    """What the recipe's arguments are on this machine."""
    certificates, wheels = os.environ.get("SSL_CERT_FILE"), os.environ.get("PIP_FIND_LINKS")
    options = ["--pull=never"]
    if certificates:
        options += [f"--volume={certificates}:/certificates.pem:ro"]
        options += [f"--build-arg={name}=/certificates.pem" for name in ("SSL_CERT_FILE", "PIP_CERT")]
    if wheels:
        options += [f"--volume={wheels}:/wheels:ro", "--build-arg=UV_FIND_LINKS=/wheels"]
        options += ["--build-arg=TORCH_BACKEND="]
    return options


@pytest.fixture(scope="session")
def sources(big_folder: Path) -> Path:
    """What the recipe is made from, and the tests of it, as they are now: later edits do not come between."""
    folder = big_folder / "sources"
    copy([*INGREDIENTS, *WORKFLOW, "params.yaml", "tests"], folder)
    return folder


@pytest.fixture(scope="session")
def image(podman: Podman, base: None, sources: Path, build_options: list[str]) -> str:
    """ID of the image spectralgru:cpu."""
    return podman.make_image(sources, *build_options)


@pytest.fixture(scope="session")
def sif(podman: Podman, image: str, sources: Path) -> tuple[Path, str]:
    """The image for Apptainer, and a PATH with Apptainer on it."""
    if shutil.which("apptainer") is None:
        sh(str(Path(__file__).parent / "get_apptainer.sh"), str(podman.folder / "apptainer"))
    path = f"{podman.folder}/apptainer/usr/bin:{os.environ['PATH']}"
    environment = podman.environment | {"PATH": path, "APPTAINER_TMPDIR": str(podman.folder)}
    sh("make", "sif", f"PODMAN={shlex.join(podman.command)}", cwd=sources, env=environment)
    return sources / "spectralgru.sif", path


@pytest.fixture(scope="session")
def new_campaign(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes checkouts whose quick campaign takes seconds."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("campaign")
        copy(WORKFLOW, folder)
        (folder / "params.yaml").write_text(seconds_long())
        return folder

    return make


def copy(names: list[str], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
