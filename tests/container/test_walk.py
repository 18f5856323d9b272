"""What a newcomer types on Debian with python3, make and git alone, in this order: the last commit, as it is cloned."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from images import ROOT, Podman, seconds_long, sh

pytestmark = pytest.mark.container


@dataclass(frozen=True)
class Newcomer:
    """Somebody in a container that goes on between commands; what is their home there is `home` here."""

    podman: Podman
    container: str
    home: Path

    def type(self, command: str, folder: str = "", code: int = 0) -> str:
        """Output of a command that ends with this exit code."""
        inside = ["exec", f"--workdir=/root/{folder}", self.container, "bash", "-c", command]
        done = subprocess.run(
            [*self.podman.command, *inside],
            env=self.podman.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, f"{command}:\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="module", params=["bookworm", "trixie"])  # Python 3.11, 3.13
def newcomer(podman: Podman, big_folder: Path, request: pytest.FixtureRequest) -> Iterator[Newcomer]:
    suite = request.param
    podman.import_debian(suite, "python3,make,git,ca-certificates", f"bare:{suite}")
    home = big_folder / f"home-{suite}"
    sh("git", "clone", "--quiet", "--bare", str(ROOT), str(home / "spectralgru.git"))
    options = [f"--volume={home}:/root"]
    if certificates := os.environ.get("SSL_CERT_FILE"):
        options += [f"--volume={certificates}:/certificates.pem:ro"]
        options += [f"--env={name}=/certificates.pem" for name in ("SSL_CERT_FILE", "PIP_CERT")]
    if wheels := os.environ.get("PIP_FIND_LINKS"):
        options += [f"--volume={wheels}:/wheels:ro", "--env=PIP_FIND_LINKS=/wheels"]
    container = podman("run", "--detach", *options, f"bare:{suite}", "sleep", "infinity").strip()
    yield Newcomer(podman, container, home)
    podman("rm", "--force", container)


@pytest.fixture(scope="module")
def checkout(newcomer: Newcomer) -> str:
    """Where the clone is, with a space as people have them; Debian's python3-venv was put in when make asked for it."""
    folder = "my papers/spectralgru"
    newcomer.type(f"git clone --quiet spectralgru.git {shlex.quote(folder)}")
    assert "reproduce" in newcomer.type("make", folder)
    asked = re.search(r"apt install (python3\S*-venv)", newcomer.type("make reproduce", folder, code=2))
    newcomer.type(f"apt-get update -q && apt-get install -y -q --no-install-recommends {asked[1]}")
    return folder


def test_from_the_clone_to_the_report(newcomer: Newcomer, checkout: str) -> None:
    here = newcomer.home / checkout
    (here / "params.yaml").write_text(seconds_long())
    said = newcomer.type("make reproduce", checkout)
    assert "Everything is up to date at scale quick." in said
    assert "Nothing to be done" in newcomer.type("make reproduce", checkout)
    results = here / "results/quick"
    assert "<table" in (results / "report.html").read_text()
    assert (results / "article.pdf").read_bytes().startswith(b"%PDF")
    assert newcomer.type("git status --short", checkout) == " M params.yaml\n"
    activated = "source .venv/bin/activate && "
    assert newcomer.type(f"{activated}spectralgru report", checkout) == "results/quick/report.html\n"
    assert "MISSING" not in newcomer.type(f"{activated}spectralgru doctor", checkout)
    assert "chorales: 4 runs" in newcomer.type(f"{activated}spectralgru status", checkout)
    assert "tests collected" in newcomer.type(f"{activated}pytest --collect-only --quiet", checkout)


def test_from_the_wheel_to_the_notebook(newcomer: Newcomer, checkout: str) -> None:
    newcomer.type("python3 -m venv mine && mine/bin/pip install --quiet jupyter")
    newcomer.type(f"mine/bin/pip wheel --quiet --no-deps --wheel-dir dist {shlex.quote(checkout)}")
    newcomer.type("mine/bin/pip install --quiet dist/spectralgru-*.whl")
    assert "pip install 'spectralgru[pipeline]'" in newcomer.type("mine/bin/spectralgru doctor", code=1)
    newcomer.type(f"cp {shlex.quote(checkout)}/examples/*.ipynb .")
    newcomer.type("mine/bin/jupyter nbconvert --to notebook --execute --inplace why_it_exploded.ipynb")
    cells = json.loads((newcomer.home / "why_it_exploded.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    printed = "".join(line for cell in code for output in cell["outputs"] for line in output.get("text", []))
    assert "cause: candidate (gru.weight_hh_l0)" in printed
