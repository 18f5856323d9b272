"""The recipe names the versions that the rest of the project names; nothing is built here."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "envs/Dockerfile").read_text()


def names(file):
    return {line.partition("==")[0] for line in (ROOT / "envs" / file).read_text().split()}


def test_it_installs_with_the_uv_of_the_makefile():
    wanted = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())[1]
    assert (ROOT / "envs/installer.lock").read_text().startswith(f"uv=={wanted} \\\n    --hash=sha256:")
    for text in (RECIPE, (ROOT / "Makefile").read_text()):
        assert re.search(
            r"pip install --quiet --require-hashes (-r|--requirement) envs/installer\.lock", text
        )


def test_its_python_is_that_of_the_conda_file():
    environment = yaml.safe_load((ROOT / "workflow/envs/environment.yaml").read_text())
    version = re.search(r"ARG BASE=\S*python:([0-9.]+)", RECIPE)[1]
    assert environment["dependencies"][0] == f"python={version}"


def test_the_gpu_image_pins_what_the_lock_leaves_to_torch():
    assert names("cuda.lock") == names("lock-excludes.txt")
    assert all("==" in line for line in (ROOT / "envs/cuda.lock").read_text().splitlines())
    assert not names("cuda.lock") & names("requirements.lock")


def test_the_workflow_runs_in_the_image_that_make_builds():
    image = re.search(
        r'^container: "(\S+)"', (ROOT / "workflow/rules/workflow.smk").read_text(), re.MULTILINE
    )
    assert f"$(SIF_OPTIONS) {image[1]} " in (ROOT / "Makefile").read_text()
    before, _, _ = (ROOT / "workflow/rules/workflow.smk").read_text().partition("include:")
    assert image[0] in before  # a container holds for the rules after it
